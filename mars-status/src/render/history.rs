//! The history of the logs of a resource.

use mars_core::status::{LogHistory, ResourceStatus, Verdict};

use super::{Ink, Screen};

pub(super) fn render(screen: &mut Screen, status: &ResourceStatus) {
    screen.put(Ink::Blue, "   -> History Replay/Status\n");
    for log in &status.history {
        render_log(screen, log);
    }
}

fn render_log(screen: &mut Screen, log: &LogHistory) {
    screen.faint(format!(
        "\tLogfile Version: {:09} - Size: {}\n",
        log.log.seq, log.size_bytes
    ));
    for source in &log.sources {
        screen.faint(format!(
            "\t\tSource: {}, Check: {}, ReplayPosition: {}, Todo: 0 blocks\n",
            source.host, source.digest, source.pos
        ));
        if source.is_split_brain {
            screen.red(
                "\t\t---> TODO: Logfiles has not equal Checksums and same size, check for SPLIT-BRAIN\n",
            );
        }
    }
    if log.has_twin {
        screen.red(format!(
            "\t\t---> TODO: another Logfile has the same number ({}), check for SPLIT-BRAIN\n",
            log.log
        ));
    }
    verdict(screen, log.verdict);
    if log.is_ordered_deleted {
        screen.red(format!(
            "\t\t---> HINT: LogFile ist marked for delete ({}).\n",
            log.log
        ));
    }
}

fn verdict(screen: &mut Screen, verdict: Verdict) {
    let text = match verdict {
        Verdict::CountDiffers { nodes, links } => {
            return screen.red(format!(
                "\t\t---> TODO: Count of Logfiles different = (have:{nodes} found:{links})\n"
            ));
        }
        Verdict::Different => {
            "Logfiles has not equal Checksums and different size, Replay in progress ..."
        }
        Verdict::Newest => "logfiles are actual and unused.",
        Verdict::Unused => "Logfiles are actual and unused.",
        Verdict::Deletable => "Logfiles has all equal Sizes and Checksums, can be deleted ...",
    };
    screen.red(format!("\t\t---> WORK: {text}\n"));
}
