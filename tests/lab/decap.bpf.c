// The tunnel end of a real server: takes the outer headers off and lets the kernel go on with the inner packet.
//
// IPv4 or IPv6 in IPv4 or IPv6 (RFC 2003, RFC 4213, RFC 2473), and the same in GUE on UDP port 6080, variants 0 and 1
// (draft-ietf-intarea-gue-09). All else is left as it is: fragments of tunnel packets, GUE control messages, packets cut
// short. Outer UDP checksums are not looked at.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define GUE_PORT 6080
#define FRAGMENT 0x3fff // "more fragments" and the offset (RFC 791)
#define LONGEST 256     // outer headers together; tells the verifier that offsets are small

// Protocol number of what GUE carries, and its header's length in `skip`; 0 if that is no packet.
static __always_inline int gue(__u8 *at, __u8 *end, __u32 *skip)
{
    if (at + 4 > end)
        return 0;
    switch (at[0] >> 4) {
    case 4: // variant 1: the first nibble is the inner packet's own version
        *skip = 0;
        return IPPROTO_IPIP;
    case 6:
        *skip = 0;
        return IPPROTO_IPV6;
    }
    if (at[0] & 0xe0) // another variant, or a control message
        return 0;
    *skip = 4 + (at[0] & 0x1f) * 4;
    return at[1];
}

SEC("xdp")
int decapsulate(struct xdp_md *context)
{
    __u8 *data = (void *)(long)context->data;
    __u8 *end = (void *)(long)context->data_end;
    struct ethhdr *ethernet = (void *)data;
    __u32 outer, skip;
    int protocol;

    if (data + sizeof(*ethernet) > end)
        return XDP_PASS;
    __u8 *at = data + sizeof(*ethernet);
    if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
        struct iphdr *ip = (void *)at;
        if (at + sizeof(*ip) > end || ip->ihl < 5 || ip->frag_off & bpf_htons(FRAGMENT))
            return XDP_PASS;
        outer = ip->ihl * 4;
        protocol = ip->protocol;
    } else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
        struct ipv6hdr *ip = (void *)at;
        if (at + sizeof(*ip) > end)
            return XDP_PASS;
        outer = sizeof(*ip);
        protocol = ip->nexthdr;
    } else {
        return XDP_PASS;
    }

    if (protocol == IPPROTO_UDP) {
        struct udphdr *udp = (void *)(at + outer);
        if ((__u8 *)(udp + 1) > end || udp->dest != bpf_htons(GUE_PORT))
            return XDP_PASS;
        protocol = gue((__u8 *)(udp + 1), end, &skip);
        outer += sizeof(*udp) + skip;
    }

    __be16 type;
    __u32 shortest;
    if (protocol == IPPROTO_IPIP) {
        type = bpf_htons(ETH_P_IP);
        shortest = sizeof(struct iphdr);
    } else if (protocol == IPPROTO_IPV6) {
        type = bpf_htons(ETH_P_IPV6);
        shortest = sizeof(struct ipv6hdr);
    } else {
        return XDP_PASS;
    }
    if (outer > LONGEST || at + outer + shortest > end)
        return XDP_PASS;

    struct ethhdr link = *ethernet;
    link.h_proto = type;
    if (bpf_xdp_adjust_head(context, outer))
        return XDP_DROP;
    ethernet = (void *)(long)context->data;
    if ((void *)(ethernet + 1) > (void *)(long)context->data_end)
        return XDP_DROP;
    *ethernet = link;
    return XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0";
