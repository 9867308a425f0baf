// SPDX-License-Identifier: GPL-2.0
/*
 * What bindgen cannot express for the Rust part: inline functions, macros, tables of operations that hold THIS_MODULE.
 */
#include <linux/blkdev.h>
#include <linux/crc32c.h>
#include <linux/highmem.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>

MODULE_VERSION("0.1.0");

/* In Rust. */
void mars_submit_bio(struct bio *bio);
int mars_open(struct gendisk *disk, blk_mode_t mode);
void mars_release(struct gendisk *disk);
int mars_control_open(struct inode *inode, struct file *file);
int mars_control_release(struct inode *inode, struct file *file);
ssize_t mars_control_read(struct file *file, char __user *to, size_t len, loff_t *pos);
__poll_t mars_control_poll(struct file *file, struct poll_table_struct *table);
long mars_control_ioctl(struct file *file, unsigned int request, unsigned long argument);

/* Their declarations stand in Rust. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

static const struct block_device_operations device_operations = {
	.owner = THIS_MODULE,
	.submit_bio = mars_submit_bio,
	.open = mars_open,
	.release = mars_release,
};

static const struct file_operations control_operations = {
	.owner = THIS_MODULE,
	.open = mars_control_open,
	.release = mars_control_release,
	.read = mars_control_read,
	.poll = mars_control_poll,
	.unlocked_ioctl = mars_control_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice control = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "mars-control",
	.mode = 0600,
	.fops = &control_operations,
};

int mars_control_register(void) { return misc_register(&control); }
void mars_control_unregister(void) { misc_deregister(&control); }

void mars_poll_wait(struct file *file, wait_queue_head_t *queue, struct poll_table_struct *table)
{
	poll_wait(file, queue, table);
}

u32 mars_crc32c(u32 crc, const void *from, unsigned int len) { return crc32c(crc, from, len); }

/* A disk that looks like the lower one, with a write cache: what is acknowledged is volatile until FLUSH. */
struct gendisk *mars_alloc_disk(struct block_device *lower)
{
	struct queue_limits limits = {
		.logical_block_size = bdev_logical_block_size(lower),
		.physical_block_size = bdev_physical_block_size(lower),
		.io_min = bdev_io_min(lower),
		.io_opt = bdev_io_opt(lower),
		.max_hw_sectors = UINT_MAX,
		.features = BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA | (bdev_nonrot(lower) ? 0 : BLK_FEAT_ROTATIONAL),
	};
	struct gendisk *disk = blk_alloc_disk(&limits, NUMA_NO_NODE);

	if (!IS_ERR(disk)) {
		disk->fops = &device_operations;
		disk->flags |= GENHD_FL_NO_PART;
	}
	return disk;
}

/* Copies between memory and the bio from the iterator on, and advances the iterator. */
void mars_bio_copy(struct bio *bio, struct bvec_iter *at, void *memory, unsigned int len, bool into_bio)
{
	while (len) {
		struct bio_vec piece = bio_iter_iovec(bio, *at);

		piece.bv_len = min(piece.bv_len, len);
		if (into_bio)
			memcpy_to_bvec(&piece, memory);
		else
			memcpy_from_bvec(memory, &piece);
		bio_advance_iter_single(bio, at, piece.bv_len);
		memory += piece.bv_len;
		len -= piece.bv_len;
	}
}

/* Adds memory of the page allocator, inside one page. */
bool mars_bio_add(struct bio *bio, void *memory, unsigned int len)
{
	return bio_add_page(bio, virt_to_page(memory), len, offset_in_page(memory)) == len;
}
