package box

import (
	"fmt"

	"hawser/netns"
	"hawser/pkg/admin"
	"hawser/pkg/link"
)

// Findings converts what the virtual host's check has found.
func Findings(in []netns.Finding) []admin.Finding {
	out := make([]admin.Finding, len(in))
	for i, f := range in {
		out[i] = admin.Finding{Level: admin.Level(f.Level), What: f.What, Remedy: f.Remedy, Taken: f.Taken}
	}
	return out
}

// CheckCongestion finds out whether TCP links would have the congestion control that they
// ask for. They work without, but are slow where packets are lost.
func CheckCongestion() []admin.Finding { return judgeCongestion(link.Congestion()) }

func judgeCongestion(name string, wanted bool, err error) []admin.Finding {
	switch {
	case err != nil:
		return []admin.Finding{{Level: admin.LevelWarn, What: err.Error()}}
	case !wanted:
		return []admin.Finding{{Level: admin.LevelWarn,
			What:   fmt.Sprintf("the kernel has no BBR: TCP links send by %s from here, which is slow where packets are lost", name),
			Remedy: "modprobe tcp_bbr, and name tcp_bbr in /etc/modules-load.d/hawser.conf; or set links[].transport: quic, which brings its own"}}
	}
	return nil
}
