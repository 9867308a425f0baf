# MARS: asynchronous replication of block devices. `make` explains the targets.

CARGO ?= cargo
prefix ?= /usr/local
sbindir ?= $(prefix)/sbin
datadir ?= $(prefix)/share
unitdir ?= /etc/systemd/system
udevrulesdir ?= /etc/udev/rules.d
APT_PACKAGES = e2fsprogs fio gcc iproute2 libc6-dev libssl-dev make nftables openssh-client openssh-server \
	pkg-config rsync util-linux xfsprogs
VM_PACKAGES = bc bison dmsetup flex kmod libclang-common-14-dev libclang1-14 libelf-dev qemu-system-x86 xz-utils
PROGRAMS = marsd mars-shim marsadm mars-status

.DEFAULT_GOAL := help
.PHONY: help deps build run test scenarios chaos bench lint install clean vm-deps vm-kernel kmod vm-test vm-quick vm-boot vm-bench

help: ## Show this list
	@echo "MARS targets:"
	@sed -n 's/^\([a-z-]*\):[^#]*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 14

# $(call install,PACKAGES): those of them that are missing
define install
	@missing=$$(for p in $(1); do \
	    dpkg-query -W -f='$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || printf '%s ' $$p; done); \
	[ -z "$$missing" ] && exit 0; \
	echo "installing missing packages: $$missing"; \
	command -v apt-get >/dev/null || { echo "this is no Debian: install what these packages hold by hand" >&2; exit 1; }; \
	[ "$$(id -u)" = 0 ] || { echo "this needs root: sudo apt-get install $$missing" >&2; exit 1; }; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get install -y -qq --no-install-recommends $$missing >/dev/null 2>&1 || \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }
endef

deps: ## Install the Debian packages that building and testing need (only those that are missing)
	$(call install,$(APT_PACKAGES))
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust 1.89 or newer (https://rustup.rs)" >&2; exit 1; }

build: deps ## Compile everything
	$(CARGO) build --workspace

run: build ## Watch two nodes replicate: create, join, sync, hand over, compare (KEEP=1 leaves them up)
	@$(CARGO) run --quiet --package mars-tests --bin mars-run -- $(if $(KEEP),--keep)

# All in one: another selection of packages would mean other features of what they need, and a second build.
test: deps ## Run every test, of the crates and of whole clusters, JOBS=2 at a time (needs root)
	RUST_TEST_THREADS=$(or $(JOBS),2) $(CARGO) test --workspace

scenarios: build ## Run one cluster scenario only: make scenarios S=handover
	$(CARGO) test --package mars-tests --test scenarios -- --test-threads=1 --nocapture $(addsuffix ::,$(S))

chaos: build ## Random life of several nodes: make chaos [SEED=7] [MINUTES=10] [NODES=4]; a seed repeats its decisions
	@$(CARGO) run --quiet --package mars-tests --bin mars-chaos -- --seed $(or $(SEED),$$(date +%s)) \
	    --minutes $(or $(MINUTES),10) --nodes $(or $(NODES),4)

bench: deps ## Measure the data path and replication (needs root)
	$(CARGO) build --release --workspace
	$(CARGO) run --release --package mars-tests --bin mars-bench

lint: deps ## Check formatting and run clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

install: deps ## Install programs (also as MARSADM and MARS-STATUS), service, manual pages, completions (DESTDIR, prefix=/usr/local)
	$(CARGO) build --release $(addprefix --package ,$(PROGRAMS))
	install -d "$(DESTDIR)$(sbindir)"
	install -m 755 $(addprefix $${CARGO_TARGET_DIR:-target}/release/,$(PROGRAMS)) "$(DESTDIR)$(sbindir)"
	ln -sf marsadm "$(DESTDIR)$(sbindir)/MARSADM"
	ln -sf mars-status "$(DESTDIR)$(sbindir)/MARS-STATUS"
	install -d "$(DESTDIR)$(unitdir)" "$(DESTDIR)$(udevrulesdir)"
	sed 's|@sbindir@|$(sbindir)|' marsd/systemd/marsd.service.in >"$(DESTDIR)$(unitdir)/marsd.service"
	chmod 644 "$(DESTDIR)$(unitdir)/marsd.service"
	install -m 644 marsd/systemd/60-mars.rules "$(DESTDIR)$(udevrulesdir)"
	install -d "$(DESTDIR)$(datadir)/man/man8" "$(DESTDIR)$(datadir)/bash-completion/completions" \
	    "$(DESTDIR)$(datadir)/zsh/site-functions" "$(DESTDIR)$(datadir)/fish/vendor_completions.d"
	@set -e; for program in 'marsd generate' 'marsadm generate' 'mars-status --generate'; do \
	    name=$${program%% *}; \
	    make_it() { "$(DESTDIR)$(sbindir)/$$name" $${program#* } "$$1" >"$(DESTDIR)$(datadir)/$$2"; }; \
	    make_it man man/man8/$$name.8; \
	    make_it bash bash-completion/completions/$$name; \
	    make_it zsh zsh/site-functions/_$$name; \
	    make_it fish fish/vendor_completions.d/$$name.fish; \
	done

vm-deps: deps
	$(call install,$(VM_PACKAGES))

vm-kernel: vm-deps ## Build the pinned Linux kernels of the VM tests (once per MARS_KERNEL_CACHE, ~/.cache/mars-kernel)
	@for kind in plain checked; do shim-kmod/vm/kernel $$kind; done

kmod: vm-deps ## Build the kernel module for the pinned kernel
	@shim-kmod/vm/module plain

vm-test: build vm-deps ## Test the kernel module in a virtual machine (CUTS=100 cuts its power that often)
	$(CARGO) test --package mars-tests --tests --no-run
	$(CARGO) test --package mars-tests --test vm -- --ignored --test-threads=1 --nocapture

vm-quick: build vm-deps ## The part of it that .ci/run runs if the kernel is built: no clusters, no power cuts (5 minutes)
	$(CARGO) test --workspace --test vm -- --ignored --test-threads=1 basic::file_systems failures::

vm-boot: build vm-deps
	timeout 120 $${CARGO_TARGET_DIR:-target}/debug/mars-vm 'echo "a virtual machine boots"'

vm-bench: build vm-deps ## Compare disk, kernel module and DRBD in a virtual machine (SECS=10 per job)
	$(call install,drbd-utils)
	@module=$$(shim-kmod/vm/module plain) && $${CARGO_TARGET_DIR:-target}/debug/mars-vm --deadline 3600 --disk 256 --disk 4096 --disk 256 --disk 256 \
	    "PATH=$$(realpath $${CARGO_TARGET_DIR:-target}/debug):\$$PATH exec $(CURDIR)/shim-kmod/vm/bench $$module $(or $(SECS),10)"

clean: ## Remove what was built
	$(CARGO) clean
