package e2e

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestBadInput: whatever is wrong, an agent says so in one line that names it,
// ends with the right code, and leaves the host as it was.
func TestBadInput(t *testing.T) {
	t.Parallel()
	r := prepare(t, fast(), pair.Options{})
	loose := filepath.Join(r.Dir(), "loose.key")
	if err := os.WriteFile(loose, mustRead(t, filepath.Join(r.Dir(), "edge.key")), 0o644); err != nil {
		t.Fatal(err)
	}
	edge, cloud := r.pair.EdgeYAML(), r.pair.CloudYAML()
	for _, c := range []struct {
		name, role, conf string
		change           [2]string
		prepare          func() func()
		want             string // in the line
		code             int
	}{
		{name: "missing client interface", role: "edge", conf: edge, change: [2]string{"[lan0]", "[nosuch1]"}, want: "nosuch1", code: 1},
		{name: "unknown key", role: "edge", conf: edge, change: [2]string{"steer:", "stear:"}, want: "stear", code: 2},
		{name: "bad transport", role: "edge", conf: edge, change: [2]string{"transport: auto", "transport: sctp"}, want: "sctp", code: 2},
		{name: "key readable by others", role: "edge", conf: edge, change: [2]string{"edge.key", "loose.key"}, want: "0644", code: 2},
		{name: "no key file", role: "edge", conf: edge, change: [2]string{"edge.key", "none.key"}, want: "none.key", code: 2},
		{name: "TCP port in use", role: "cloud", conf: cloud, prepare: r.occupyTCP, want: "already in use", code: 1},
		{name: "UDP port in use", role: "cloud", conf: cloud, prepare: r.occupyUDP, want: "already in use", code: 1},
		{name: "a second agent", role: "cloud", conf: cloud, prepare: r.occupySocket, want: "cloud.sock", code: 1},
		{name: "bad listen", role: "cloud", conf: cloud, change: [2]string{":7443", ":99999"}, want: "99999", code: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.change[0] != "" {
				c.conf = strings.Replace(c.conf, c.change[0], c.change[1], 1)
			}
			conf, err := r.WriteFile("bad.yaml", c.conf)
			if err != nil {
				t.Fatal(err)
			}
			if c.prepare != nil {
				defer c.prepare()()
			}
			line, code := r.tryRun(t, c.role, conf)
			t.Log(line)
			if code != c.code || !strings.Contains(line, c.want) {
				t.Errorf("exit code %d, %q; want %d and %q", code, line, c.code, c.want)
			}
			r.noLeaks()
		})
	}
}

// TestNotRoot: without privileges an agent says what it lacks.
func TestNotRoot(t *testing.T) {
	t.Parallel()
	r := prepare(t, fast(), pair.Options{})
	lab.NeedTools(t, "setpriv")
	for role, conf := range map[string]string{"edge": r.pair.EdgeConf(), "cloud": r.pair.CloudConf()} {
		bin, err := lab.Binary("hawser/" + role)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Exec(role, "setpriv", "--bounding-set=-all", "--inh-caps=-all", bin, "run", "-c", conf)
		if err == nil || !strings.Contains(err.Error(), "root") {
			t.Errorf("%s: %v", role, err)
		}
		t.Log(err)
		r.noLeaks()
	}
}

// TestCheck: the verb check finds what run would stumble over.
func TestCheck(t *testing.T) {
	t.Parallel()
	r := prepare(t, fast(), pair.Options{})
	if err := r.pair.StartCloud(); err != nil {
		t.Fatal(err)
	}
	out, err := r.run("edge", "check", "-c", r.pair.EdgeConf())
	t.Logf("%s", out)
	if err != nil || strings.Count(out, "answers and accepts") != 2 {
		t.Errorf("a good configuration: %v", err)
	}
	bad, err := r.WriteFile("bad.yaml", strings.Replace(r.pair.EdgeYAML(), "interface: up2", "interface: nosuch0", 1))
	if err != nil {
		t.Fatal(err)
	}
	out, err = r.run("edge", "check", "-c", bad)
	if err != nil || !strings.Contains(out, "interface nosuch0: there is no such interface") { // run waits for it
		t.Errorf("a missing uplink: %v\n%s", err, out)
	}
	r.checkBesideCloud(t)
}

// checkBesideCloud looks at the configuration of the cloud that runs, which is no fault of
// it, and at another one that wants the same port and namespace.
func (r *rig) checkBesideCloud(t *testing.T) {
	t.Helper()
	out, err := r.run("cloud", "check", "-c", r.pair.CloudConf())
	if err != nil || !strings.Contains(out, "an agent is running") || !strings.Contains(out, "already in use") || strings.Contains(out, "else \n") {
		t.Errorf("the cloud that runs: %v\n%s", err, out)
	}
	conf, err := os.ReadFile(r.pair.CloudConf())
	if err != nil {
		t.Fatal(err)
	}
	other, err := r.WriteFile("other.yaml", strings.Replace(string(conf), "cloud.sock", "other.sock", 1))
	if err != nil {
		t.Fatal(err)
	}
	out, err = r.run("cloud", "check", "-c", other)
	if err == nil || !strings.Contains(out, "other.sock is free") || !strings.Contains(out, "already in use") {
		t.Errorf("beside a cloud that runs: %v\n%s", err, out)
	}
}

// tryRun runs an agent that must fail and returns its last line and exit code.
func (r *rig) tryRun(t *testing.T, role, conf string) (string, int) {
	t.Helper()
	bin, err := lab.Binary("hawser/" + role)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Start(role, bin, "run", "-c", conf)
	if err != nil {
		t.Fatal(err)
	}
	err = p.Wait(30 * time.Second)
	p.Kill()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("ended with %v\n%s", err, p.Output())
	}
	return lastLine(p.Output()), exit.ExitCode()
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// occupyTCP holds the cloud's TCP port; the result lets go of it.
func (r *rig) occupyTCP() func() {
	ln := r.listen("cloud", pair.Port)
	return func() { ln.Close() }
}

func (r *rig) occupyUDP() func() {
	var c net.PacketConn
	err := r.Do("cloud", func() (err error) {
		c, err = net.ListenPacket("udp", ":7443")
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return func() { c.Close() }
}

// occupySocket listens on the control socket as a running agent would.
func (r *rig) occupySocket() func() {
	ln, err := net.Listen("unix", r.pair.Socket("cloud"))
	if err != nil {
		r.t.Fatal(err)
	}
	return func() { ln.Close(); _ = syscall.Unlink(r.pair.Socket("cloud")) }
}
