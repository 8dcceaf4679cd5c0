package lab

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// NeedRoot skips the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
}

// NeedTools skips the test, with the reason, unless all programs are installed.
func NeedTools(t testing.TB, names ...string) {
	t.Helper()
	var missing []string
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		t.Skipf("needs %s: install it first (Debian: apt-get install nginx-light curl iperf3 iputils-ping iproute2 iptables)",
			strings.Join(missing, ", "))
	}
}

// Build builds a lab for a test, which is skipped without root, and closes it after the
// test. When the test has failed, the ends of all process logs are printed first.
func Build(t testing.TB, spec Spec) *Lab {
	t.Helper()
	NeedRoot(t)
	l, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.finish(t) })
	return l
}

func (l *Lab) finish(t testing.TB) {
	if t.Failed() {
		l.mu.Lock()
		procs := l.procs
		l.mu.Unlock()
		for _, p := range procs {
			if out := p.Output(); out != "" {
				t.Logf("%s:\n%s", p.name, tail(out))
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
