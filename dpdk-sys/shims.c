#include "wrapper.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

uint16_t steerage_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, frames, n);
}

uint16_t steerage_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t n)
{
	uint16_t sent = rte_eth_tx_burst(port, queue, frames, n);

	/* The queue is full, or a stage of the driver is: trying again would be waiting. */
	if (sent < n)
		rte_pktmbuf_free_bulk(frames + sent, n - sent);
	return n - sent;
}

uint16_t steerage_tx_offer(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, frames, n);
}

struct rte_mbuf *steerage_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int steerage_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **frames, unsigned int n)
{
	return rte_pktmbuf_alloc_bulk(pool, frames, n);
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

/* The levels of both libraries: 0 a warning, 1 information, 2 for debugging. */
typedef int (*library_print)(int level, const char *format, va_list arguments);

static void (*library_line)(const char *text);

static int print_line(int level, const char *format, va_list arguments)
{
	char text[512];
	int length = vsnprintf(text, sizeof(text), format, arguments);

	if (length > 0 && level < 2)
		library_line(text);
	return length;
}

void steerage_log_libraries(void (*line)(const char *text))
{
	static const char *const setters[][2] = {
		{ "libbpf.so.1", "libbpf_set_print" },
		{ "libxdp.so.1", "libxdp_set_print" },
	};

	library_line = line;
	for (size_t i = 0; i < RTE_DIM(setters); i++) {
		/* Only what a driver loaded: they are nothing that this program needs. */
		void *library = dlopen(setters[i][0], RTLD_LAZY | RTLD_NOLOAD);

		if (library == NULL)
			continue;
		library_print (*set)(library_print);
		*(void **)&set = dlsym(library, setters[i][1]);
		if (set != NULL)
			set(print_line);
		dlclose(library);
	}
}

int steerage_all_multicast(unsigned int interface)
{
	struct packet_mreq request = { .mr_ifindex = (int)interface, .mr_type = PACKET_MR_ALLMULTI };
	/* Protocol 0: the socket receives nothing itself. */
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request, sizeof(request)) < 0) {
		int why = errno;

		close(fd);
		return -why;
	}
	return fd;
}

int steerage_interface_runs(const char *name)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), result;

	if (fd < 0)
		return -errno;
	strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		result = errno == ENODEV ? 0 : -errno;
	else
		result = (request.ifr_flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);
	close(fd);
	return result;
}
