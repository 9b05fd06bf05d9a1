/* What the bindings are made from: DPDK's headers, its 64-bit flags as constants (bindgen can't read RTE_BIT64), and the
 * shims for its inline functions. */
#ifndef STEERAGE_DPDK_WRAPPER_H
#define STEERAGE_DPDK_WRAPPER_H

#include <net/if.h>
#include <sched.h>
#include <stdio.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

static const uint64_t STEERAGE_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t STEERAGE_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t STEERAGE_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t STEERAGE_RSS_IP_TCP_UDP = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
static const uint64_t STEERAGE_RSS_IP = RTE_ETH_RSS_IP;
static const uint64_t STEERAGE_RSS_TCP = RTE_ETH_RSS_TCP;
static const uint64_t STEERAGE_RSS_UDP = RTE_ETH_RSS_UDP;
static const uint64_t STEERAGE_RSS_SCTP = RTE_ETH_RSS_SCTP;
static const uint64_t STEERAGE_MBUF_RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t STEERAGE_MBUF_RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t STEERAGE_MBUF_RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;

/* rte_eth_rx_burst: up to `n` frames of a queue into `frames`; returns how many. */
uint16_t steerage_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t n);
/* rte_eth_tx_burst of all `n` frames; frees those that the device did not take and returns how many they were. */
uint16_t steerage_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t n);
/* rte_eth_tx_burst: returns how many of the `n` frames the device took; the others stay the caller's. */
uint16_t steerage_tx_offer(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t n);
/* rte_pktmbuf_alloc: a frame of no bytes, or NULL. */
struct rte_mbuf *steerage_alloc(struct rte_mempool *pool);
/* rte_pktmbuf_alloc_bulk: `n` frames of no bytes, or none of them and a negative error. */
int steerage_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **frames, unsigned int n);
/* rte_pktmbuf_free: all segments of a frame. */
void steerage_free(struct rte_mbuf *frame);
/* rte_pktmbuf_free_seg: one segment. */
void steerage_free_segment(struct rte_mbuf *segment);
/* rte_pktmbuf_linearize: all bytes into the first segment; negative, and no change, where they don't fit. */
int steerage_linearize(struct rte_mbuf *frame);
/* rte_errno of this thread. */
int steerage_errno(void);
/* rte_lcore_id of this thread; LCORE_ID_ANY if it has none. */
unsigned int steerage_lcore_id(void);
/* A stream that gives all that is written to it to `write`, for rte_openlog_stream; NULL without memory. */
FILE *steerage_log_stream(ssize_t (*write)(void *cookie, const char *bytes, size_t length));
/* Gives the messages of libbpf and libxdp, where a driver has loaded them, to `line` instead of standard error. */
void steerage_log_libraries(void (*line)(const char *text));
/* Makes the kernel receive all multicast on an interface as long as the returned descriptor is open; negative: -errno. */
int steerage_all_multicast(unsigned int interface);
/* Whether a kernel interface is up and has a carrier; negative (-errno) if that can't be told. */
int steerage_interface_runs(const char *name);

#endif
