package gateway

import (
	"fmt"
	"net"
	"net/netip"

	"hawser/pkg/admin"
	"hawser/pkg/box"
	"hawser/pkg/config"
)

// checkShared looks at what both sides need.
func checkShared(cfg *config.Box) []admin.Finding {
	return append(box.CheckCard(cfg.Card), box.CheckMetrics(cfg)...)
}

// checkListen finds out whether an address can be had.
func checkListen(field string, at netip.AddrPort) admin.Finding {
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return fails(fmt.Errorf("%s: %w", field, err), "stop the program that has it, or change the address")
	}
	l.Close()
	return admin.Finding{Level: admin.LevelOK, What: fmt.Sprintf("%s: TCP %v is free", field, at)}
}

func fails(err error, remedy string) admin.Finding {
	return admin.Finding{Level: admin.LevelFail, What: err.Error(), Remedy: remedy}
}
