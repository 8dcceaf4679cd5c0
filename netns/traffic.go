package netns

import "github.com/vishvananda/netlink"

// Traffic is what the kernel has counted on an interface, all programs' traffic
// and link-layer headers included. The counters start at 0 when the interface is
// made, and again when it is made anew. Those of some drivers have 32 bits on machines of
// 32 bits, and go on from 0 when they are full.
type Traffic struct {
	Index           int // the interface's; another one: it was made anew
	SentBytes       uint64
	ReceivedBytes   uint64
	SentErrors      uint64
	ReceivedErrors  uint64
	SentDropped     uint64
	ReceivedDropped uint64
	SentPackets     uint64
	ReceivedPackets uint64
}

// Traffic asks the kernel, by netlink, what has passed the links' interfaces. It
// returns one entry per place in Plan.Links, nil where there is no such interface now.
func (h *Host) Traffic() ([]*Traffic, error) {
	var all []*Traffic
	err := h.atHome(func() error {
		for _, l := range h.plan.Links {
			all = append(all, trafficOf(l.Interface))
		}
		return nil
	})
	return all, err
}

func trafficOf(name string) *Traffic {
	if name == "" {
		return nil
	}
	device, err := netlink.LinkByName(name)
	if err != nil || device.Attrs().Statistics == nil {
		return nil
	}
	a := device.Attrs()
	s := a.Statistics
	return &Traffic{
		Index:     a.Index,
		SentBytes: s.TxBytes, ReceivedBytes: s.RxBytes,
		SentPackets: s.TxPackets, ReceivedPackets: s.RxPackets,
		SentErrors: s.TxErrors, ReceivedErrors: s.RxErrors,
		SentDropped: s.TxDropped, ReceivedDropped: s.RxDropped,
	}
}
