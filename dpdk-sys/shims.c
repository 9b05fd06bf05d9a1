#include "wrapper.h"

uint16_t steerage_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, frames, n);
}

uint16_t steerage_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t n, bool prepare)
{
	uint16_t done = 0, refused = 0;

	while (done < n) {
		/* What the driver can't send stops rte_eth_tx_prepare: those before it go out, it is freed, and on. */
		uint16_t ready = prepare ? rte_eth_tx_prepare(port, queue, frames + done, n - done) : n - done;
		uint16_t sent = ready > 0 ? rte_eth_tx_burst(port, queue, frames + done, ready) : 0;

		done += sent;
		if (done == n)
			break;
		if (sent < ready) {
			/* The queue is full, or a stage of the driver is: trying again would be waiting. */
			rte_pktmbuf_free_bulk(frames + done, n - done);
			refused += n - done;
			break;
		}
		rte_pktmbuf_free(frames[done]);
		done++;
		refused++;
	}
	return refused;
}

struct rte_mbuf *steerage_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void steerage_free(struct rte_mbuf *frame)
{
	rte_pktmbuf_free(frame);
}

void steerage_free_segment(struct rte_mbuf *segment)
{
	rte_pktmbuf_free_seg(segment);
}

int steerage_linearize(struct rte_mbuf *frame)
{
	return rte_pktmbuf_linearize(frame);
}

int steerage_errno(void)
{
	return rte_errno;
}

unsigned int steerage_lcore_id(void)
{
	return rte_lcore_id();
}

FILE *steerage_log_stream(ssize_t (*write)(void *cookie, const char *bytes, size_t length))
{
	return fopencookie(NULL, "w", (cookie_io_functions_t){ .write = write });
}
