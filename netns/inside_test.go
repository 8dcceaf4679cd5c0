package netns

import (
	"os/exec"
	"testing"

	nsh "github.com/vishvananda/netns"
)

// TestSignalsSpareTheCommands: a signal that is meant for the agent and reaches its
// children, too, as Ctrl-C does, ends no command half-way; afterwards the threads
// are as they were.
func TestSignalsSpareTheCommands(t *testing.T) {
	home, err := nsh.Get()
	must(t, err)
	defer home.Close()
	for _, signal := range []string{"INT", "TERM", "HUP"} {
		hit := func() error { return exec.Command("sh", "-c", "kill -"+signal+" $$").Run() }
		if err := inside(home, hit); err != nil {
			t.Errorf("SIG%s: %v", signal, err)
		}
		// The other two may be ignored where the tests run in the background.
		if signal == "TERM" && hit() == nil {
			t.Error("SIGTERM is kept from other programs, too")
		}
	}
}
