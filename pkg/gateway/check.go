package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"hawser/pkg/admin"
	"hawser/pkg/box"
	"hawser/pkg/config"
)

// checkShared looks at what both sides need.
func checkShared(cfg *config.Box) []admin.Finding {
	return append(append(box.CheckCard(cfg.Card), box.CheckMetrics(cfg)...), box.CheckMemory(cfg)...)
}

// free finds out whether an address can be had by this process alone. Workers listen side
// by side, which the kernel would grant another relay of this user as well: either had
// some of the connections, and of the clients that the other serves.
func free(field string, at netip.AddrPort) error {
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return fmt.Errorf("%s: cannot listen on %v: %w", field, at, errors.Unwrap(err))
	}
	return l.Close()
}

// remedyListen is what to do where an address cannot be had.
const remedyListen = "stop the program that has it, or change the address"

// checkListen says whether an address can be had.
func checkListen(field string, at netip.AddrPort) admin.Finding {
	if err := free(field, at); err != nil {
		f := fails(err, remedyListen)
		f.Taken = errors.Is(err, unix.EADDRINUSE)
		return f
	}
	return admin.Finding{Level: admin.LevelOK, What: fmt.Sprintf("%s: TCP %v is free", field, at)}
}

func fails(err error, remedy string) admin.Finding {
	return admin.Finding{Level: admin.LevelFail, What: err.Error(), Remedy: remedy}
}
