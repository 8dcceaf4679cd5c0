package netns

import (
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
)

// looseSetting lets connection tracking take up a connection whose SYN it has
// not seen.
const looseSetting = "net/netfilter/nf_conntrack_tcp_loose"

// Steering is what somebody must know who answers clients' SYNs in the host's
// place, before connection tracking sees them. He answers only what would be
// steered, and puts Mark on the ACKs that follow (markRules).
type Steering struct {
	Clients    []string // interfaces
	Hub        int      // index of hub0
	Mark, Mask uint32
	Exclude    []netip.Prefix
	Ports      []PortRange // empty means all
}

// Steering describes how an edge with a hub steers.
func (h *Host) Steering() (Steering, error) {
	p := h.planNow()
	s := Steering{Clients: p.Clients, Mark: steerMark, Mask: MarkMask, Exclude: p.Exclude, Ports: p.Ports}
	err := inside(h.home, func() error {
		hub, err := netlink.LinkByName(hubHost)
		if err == nil {
			s.Hub = hub.Attrs().Index
		}
		return err
	})
	return s, err
}

// Home runs f on a thread in the network namespace of the host.
func (h *Host) Home(f func() error) error { return inside(h.home, f) }

// TakesUp says that connection tracking takes up connections whose SYN it has
// not seen, as it does unless somebody has told it not to. (Where there is none
// each packet is decided by itself.) It is to be called from Home.
func TakesUp() bool {
	v, err := readSysctl(looseSetting)
	return os.IsNotExist(err) || err == nil && v != "0"
}
