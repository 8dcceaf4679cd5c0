package netns

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Of linux/sock_diag.h, linux/inet_diag.h and net/tcp_states.h.
const (
	sockDestroy = 21
	diagMark    = 15              // INET_DIAG_MARK
	diagID      = 48              // struct inet_diag_sockid
	diagMessage = 4 + diagID + 20 // struct inet_diag_msg
	notListen   = 0xfff &^ (1 << 10)
)

// diagRequest is struct inet_diag_req_v2.
type diagRequest struct {
	family byte
	states uint32
	id     [diagID]byte
}

// Len implements nl.NetlinkRequestData.
func (r *diagRequest) Len() int { return 8 + diagID }

// Serialize implements nl.NetlinkRequestData.
func (r *diagRequest) Serialize() []byte {
	b := []byte{r.family, unix.IPPROTO_TCP, 0, 0}
	return append(binary.NativeEndian.AppendUint32(b, r.states), r.id[:]...)
}

// forgetSockets ends what the kernel still keeps of clients' connections that
// were taken by transparent sockets, most of it in TIME_WAIT: while it is there the
// kernel drops a packet that is to be forwarded between the same addresses and ports
// (ip_forward, as early demultiplexing has found the socket), and a client that
// takes its port again would wait for a minute. It returns how many there were.
// A kernel that cannot do it (CONFIG_INET_DIAG_DESTROY) lets them expire.
func forgetSockets(family int) (n int, err error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(&diagRequest{family: byte(netlinkFamily(family)), states: notListen})
	list, err := req.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if err != nil {
		return 0, unlessUnable(err)
	}
	own, err := ownAddresses()
	if err != nil {
		return 0, err
	}
	for _, m := range list {
		if !takenByUs(m, own) {
			continue
		}
		d := &diagRequest{family: m[0], states: 0xffffffff, id: [diagID]byte(m[4:])}
		kill := nl.NewNetlinkRequest(sockDestroy, unix.NLM_F_ACK)
		kill.AddData(d)
		switch _, err := kill.Execute(unix.NETLINK_INET_DIAG, 0); {
		case err == nil:
			n++
		case !errors.Is(err, unix.ENOENT): // else it has just expired
			return n, unlessUnable(err)
		}
	}
	return n, nil
}

// unlessUnable is nil for what kernels say that lack the means.
func unlessUnable(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// takenByUs says that a listed socket is one of ours towards a client: it has our
// mark, and an address that this host has not.
func takenByUs(m []byte, own map[netip.Addr]bool) bool {
	if len(m) < diagMessage {
		return false
	}
	local := netip.AddrFrom4([4]byte(m[8:]))
	if m[0] == unix.AF_INET6 {
		local = netip.AddrFrom16([16]byte(m[8:])).Unmap()
	}
	attrs, err := nl.ParseRouteAttr(m[diagMessage:])
	if err != nil || own[local] || local.IsLoopback() {
		return false
	}
	for _, a := range attrs {
		if a.Attr.Type == diagMark && len(a.Value) == 4 {
			return binary.NativeEndian.Uint32(a.Value)&MarkMask == BypassMark
		}
	}
	return false
}

// ownAddresses are those of this host's interfaces.
func ownAddresses() (map[netip.Addr]bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	own := map[netip.Addr]bool{}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own[p.Addr().WithZone("").Unmap()] = true
		}
	}
	return own, nil
}
