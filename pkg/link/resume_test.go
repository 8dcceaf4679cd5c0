package link

import (
	"os"
	"testing"

	"hawser/pkg/resume"
)

// TestRecalled: a look at a connection tells its path what it carries.
func TestRecalled(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads a BPF program")
	}
	w, err := resume.New()
	if err != nil {
		t.Skipf("this kernel does not: %v", err)
	}
	defer w.Close()
	edge, _ := startCloud(t, loopback, nil).connect(TCP)
	p, info := edge.pipe.(*tcpPipe), edge.Info()
	if info.Congestion != congestionControl {
		t.Skip("no BBR here")
	}
	if p.recalls.port != info.Remote.Port() {
		t.Errorf("port %d of the cloud, wanted %d", p.recalls.port, info.Remote.Port())
	}
	p.recalls.windows = w
	edge.Stats()
	if path := w.Path(info.Local.Addr(), info.Remote.Addr(), info.Remote.Port()); path == nil || p.recalls.path != path {
		t.Errorf("its path is %p, wanted %p", p.recalls.path, path)
	}
}
