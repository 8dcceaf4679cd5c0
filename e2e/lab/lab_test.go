package lab_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hawser/e2e/emu"
	"hawser/e2e/lab"
)

const ms = time.Millisecond

// ping returns the median round-trip time of n echo requests.
func ping(l *lab.Lab, from string, to netip.Addr, n int) (time.Duration, error) {
	out, err := l.Exec(from, "ping", "-n", "-i", "0.05", "-W", "1", "-c", strconv.Itoa(n), to.String())
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, out)
	}
	var times []time.Duration
	for _, m := range regexp.MustCompile(`time=([0-9.]+) ms`).FindAllStringSubmatch(out, -1) {
		v, _ := strconv.ParseFloat(m[1], 64)
		times = append(times, time.Duration(v*float64(ms)))
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}

// wantPing fails unless the node answers.
func wantPing(t *testing.T, l *lab.Lab, from string, to netip.Addr) {
	t.Helper()
	if _, err := ping(l, from, to, 2); err != nil {
		t.Error(err)
	}
}

// roundTrip checks a round-trip time, to 1 ms.
func roundTrip(l *lab.Lab, from string, to netip.Addr, want time.Duration) error {
	rtt, err := ping(l, from, to, 15)
	if err == nil && (rtt < want || rtt > want+ms) {
		err = fmt.Errorf("round trip to %v: %v, want %v to 1ms more", to, rtt, want)
	}
	return err
}

// download checks that a client's curl gets an URL's body of the given size at nearly
// the line's rate. The rate is never exceeded; on a busy machine it may not be reached.
func download(l *lab.Lab, url string, size int, rate float64) error {
	out, err := l.Exec("client", "curl", "-sS", "-g", "-o", "/dev/null", "-w", "%{size_download} %{time_total}", url)
	if err != nil {
		return err
	}
	var got int
	var seconds float64
	if _, err := fmt.Sscan(out, &got, &seconds); err != nil || got != size {
		return fmt.Errorf("curl says %q, want %d bytes", out, size)
	}
	payload := float64(size) * 8 / seconds
	if payload < 0.80*rate || payload > 0.97*rate {
		return fmt.Errorf("%s: %.1f Mbit/s, want a little less than %.0f", url, payload/1e6, rate/1e6)
	}
	return nil
}

// attempts repeats what the load of the machine may spoil.
func attempts(t *testing.T, measure func() error) {
	t.Helper()
	var err error
	for range 4 {
		if err = measure(); err == nil {
			return
		}
		t.Log(err)
	}
	t.Error(err)
}

func site(t *testing.T, size int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestDirectPath(t *testing.T) {
	lab.NeedTools(t, "ping", "nginx", "curl")
	l := lab.Build(t, lab.Spec{Name: "direct", IPv6: true, Uplinks: []lab.Uplink{
		{Name: "wifi", Rate: 40e6, Delay: 10 * ms},
		{Name: "lte", Rate: 20e6, Delay: 30 * ms},
	}})
	const size = 10e6
	if _, err := l.Nginx(site(t, size), 80, 8080); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		uplink string
		rtt    time.Duration
		rate   float64
	}{{"wifi", 20 * ms, 40e6}, {"lte", 60 * ms, 20e6}} {
		if err := l.Direct(c.uplink); err != nil {
			t.Fatal(err)
		}
		for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
			origin := l.Address("origin", f)
			url := fmt.Sprintf("http://%s/file", netip.AddrPortFrom(origin, 8080))
			attempts(t, func() error { return roundTrip(l, "client", origin, c.rtt) })
			attempts(t, func() error { return download(l, url, size, c.rate) })
		}
		got, err := l.Counters(c.uplink)
		if err != nil || got.Down.Counters.Forwarded.Bytes < 2*size || got.Up.Counters.Faults()+got.Down.Counters.Faults() != 0 {
			t.Errorf("counters of %s: %v, %+v", c.uplink, err, got)
		}
	}
}

func TestCloudIsReachedThroughEveryUplink(t *testing.T) {
	lab.NeedTools(t, "ping", "ip")
	l := lab.Build(t, lab.Spec{Name: "gateways", IPv6: true, Uplinks: []lab.Uplink{
		{Name: "a", Delay: 5 * ms}, {Name: "b", Delay: 15 * ms}, {Name: "c", Unshaped: true},
	}})
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		for name, want := range map[string]time.Duration{"a": 10 * ms, "b": 30 * ms, "c": 0} {
			cloud := l.Address("cloud", f)
			_, err := l.Exec("edge", "ip", "route", "replace", cloud.String(), "via", l.Gateway(name, f).String(), "dev", l.Interface(name))
			if err != nil {
				t.Fatal(err)
			}
			attempts(t, func() error { return roundTrip(l, "edge", cloud, want) })
		}
	}
	if err := l.Set("c", emu.Both, emu.SetLoss(1)); err == nil {
		t.Error("an unshaped uplink took a loss rate")
	}
}

func TestBlackholeIsSilentAndEnds(t *testing.T) {
	lab.NeedTools(t, "ping")
	l := lab.Build(t, lab.Spec{Name: "hole", Uplinks: []lab.Uplink{{Name: "a", Delay: ms}}})
	origin := l.Address("origin", lab.IPv4)
	wantPing(t, l, "client", origin)
	for _, dir := range []emu.Direction{emu.Up, emu.Down, emu.Both} {
		if err := l.Blackhole("a", dir, true); err != nil {
			t.Fatal(err)
		}
		out, err := l.Exec("client", "ping", "-n", "-c", "3", "-i", "0.05", "-W", "1", origin.String())
		if err == nil || !strings.Contains(out, "100% packet loss") {
			t.Errorf("%s: pings came through: %s", dir, out)
		}
		if err := l.Blackhole("a", emu.Both, false); err != nil {
			t.Fatal(err)
		}
		wantPing(t, l, "client", origin)
	}
	c, err := l.Counters("a")
	if err != nil {
		t.Fatal(err)
	}
	if up, down := c.Up.Counters.Dropped.Blackhole.Packets, c.Down.Counters.Dropped.Blackhole.Packets; up != 6 || down != 3 {
		t.Errorf("blackholed %d up and %d down, want 6 and 3", up, down)
	}
}

func TestSeveralClients(t *testing.T) {
	lab.NeedTools(t, "ping")
	l := lab.Build(t, lab.Spec{Name: "clients", IPv6: true, Clients: 3, Uplinks: []lab.Uplink{{Name: "a", Unshaped: true}}})
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		wantPing(t, l, "client2", l.Address("origin", f))
		wantPing(t, l, "client3", l.Address("client1", f))
	}
	if l.Emulator() != nil {
		t.Error("a lab without shaped uplinks runs an emulator")
	}
}

func TestUpload(t *testing.T) {
	lab.NeedTools(t, "nginx", "curl")
	l := lab.Build(t, lab.Spec{Name: "upload", Uplinks: []lab.Uplink{{Name: "a", Unshaped: true}}})
	n, err := l.Nginx(t.TempDir(), 80)
	if err != nil {
		t.Fatal(err)
	}
	if n.Uploads == "" {
		t.Skip("needs an nginx with its dav module")
	}
	file, err := l.WriteFile("up/load", strings.Repeat("hawser", 100_000))
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Address("origin", lab.IPv4).String() + "/upload/x"
	if out, err := l.Exec("client", "curl", "-sSf", "-T", file, url); err != nil {
		t.Fatal(err, out)
	}
	if info, err := os.Stat(filepath.Join(n.Uploads, "x")); err != nil || info.Size() != 600_000 {
		t.Errorf("stored %v, %v", info, err)
	}
	if _, err := l.Exec("client", "curl", "-sSf", "-X", "DELETE", url); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(n.Uploads, "x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("deleted, and still there: %v", err)
	}
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	l := lab.Build(t, lab.Spec{Name: "do", Uplinks: []lab.Uplink{{Name: "a", Unshaped: true}}})
	var listener net.Listener
	if err := l.Do("origin", func() (err error) {
		listener, err = net.Listen("tcp", "198.18.200.2:9000")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		if c, err := listener.Accept(); err == nil {
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	var got []byte
	if err := l.Do("client", func() error {
		c, err := net.DialTimeout("tcp", "198.18.200.2:9000", 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		got, err = io.ReadAll(c)
		return err
	}); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := net.InterfaceByName("up1"); err == nil {
		t.Error("the test's own goroutine ended up in the edge")
	}
	if err := l.Do("nowhere", func() error { return nil }); err == nil {
		t.Error("an unknown node was entered")
	}
	if err := l.Do("edge", func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("a function that never returned gave no error")
	}
}

func TestProcesses(t *testing.T) {
	l := lab.Build(t, lab.Spec{Name: "procs", Uplinks: []lab.Uplink{{Name: "a", Unshaped: true}}})
	p, err := l.Start("edge", "sh", "-c", "echo started; trap '' TERM; sleep 100 & wait; wait")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitFor("started", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := p.WaitFor("never said", 50*ms); err == nil || !strings.Contains(err.Error(), "started") {
		t.Errorf("WaitFor: %v", err)
	}
	p.Kill()
	if err := p.Wait(time.Second); err == nil {
		t.Error("a killed process ended well")
	}
	if out, err := l.Exec("edge", "sh", "-c", "echo out; echo problem >&2; exit 3"); err == nil ||
		out != "out\n" || !strings.Contains(err.Error(), "problem") {
		t.Errorf("Exec: %q, %v", out, err)
	}
	if _, err := l.Start("edge", "/no/such/program"); err == nil {
		t.Error("a missing program started")
	}
}

func TestLeaksAreFound(t *testing.T) {
	lab.NeedTools(t, "ip")
	l := lab.Build(t, lab.Spec{Name: "leaks", IPv6: true, Uplinks: []lab.Uplink{{Name: "a", Delay: ms}}})
	before, err := l.Leaks()
	if err != nil {
		t.Fatal(err)
	}
	if own := onlyNodes(before); len(own) != 0 {
		t.Fatalf("leaks in a fresh lab: %v", own)
	}
	for _, args := range [][]string{
		{"rule", "add", "fwmark", "7", "table", "77"},
		{"route", "add", "198.19.0.0/24", "via", "10.20.1.2", "table", "77"},
		{"-6", "route", "add", "fd99::/64", "via", "fd20:1::2"},
		{"link", "add", "hub0", "type", "veth", "peer", "name", "hub1"},
		{"netns", "add", l.Namespace("hub")},
	} {
		if _, err := l.Exec("edge", append([]string{"ip"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	leaks, err := l.Leaks()
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(leaks, "\n")
	for _, want := range []string{"table 77", "198.19.0.0/24", "fd99::/64", "interface hub0", "rule", "namespace " + l.Namespace("hub")} {
		if !strings.Contains(all, want) {
			t.Errorf("not found: %s in\n%s", want, all)
		}
	}
}

// onlyNodes drops what others may have done to the root namespace meanwhile.
func onlyNodes(leaks []string) []string {
	return slices.DeleteFunc(leaks, func(s string) bool { return strings.HasPrefix(s, "host:") })
}

func TestCloseLeavesNothing(t *testing.T) {
	lab.NeedRoot(t)
	l, err := lab.New(lab.Spec{Name: "gone", IPv6: true, Uplinks: []lab.Uplink{{Name: "a", Delay: ms}}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Start("client", "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	mine := strings.TrimSuffix(l.Namespace("x"), "x")
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Wait(time.Second); err == nil {
		t.Error("the process ended by itself")
	}
	if left := leftovers(t, mine); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	leaks, err := l.Leaks()
	if err != nil {
		t.Fatal(err)
	}
	for _, leak := range leaks {
		if strings.Contains(leak, mine) {
			t.Error("leak:", leak)
		}
	}
	if _, err := l.Start("client", "true"); err == nil {
		t.Error("a closed lab started a process")
	}
}

// leftovers lists namespaces and directories with the prefix.
func leftovers(t *testing.T, prefix string) []string {
	t.Helper()
	var left []string
	for _, dir := range []string{"/run/netns", os.TempDir()} {
		found, err := filepath.Glob(filepath.Join(dir, strings.TrimSuffix(prefix, "-")+"*"))
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, found...)
	}
	return left
}

const abandonVar = "HAWSER_TEST_ABANDON_LAB"

// TestAbandon is the body of the process that TestCleanStale kills.
func TestAbandon(t *testing.T) {
	if os.Getenv(abandonVar) == "" {
		t.Skip("runs only as a child of TestCleanStale")
	}
	l, err := lab.New(lab.Spec{Name: "stale", Uplinks: []lab.Uplink{{Name: "a", Delay: ms}}})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("lab=%s\n", l.Namespace(""))
	time.Sleep(time.Minute)
}

func TestCleanStale(t *testing.T) {
	lab.NeedRoot(t)
	living := lab.Build(t, lab.Spec{Name: "living", Uplinks: []lab.Uplink{{Name: "a", Delay: ms}}})
	child := exec.Command(os.Args[0], "-test.run=^TestAbandon$", "-test.v")
	child.Env = append(os.Environ(), abandonVar+"=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	id := ""
	text := make([]byte, 4096)
	for id == "" {
		n, err := out.Read(text)
		if err != nil {
			t.Fatal("the child ended without a lab")
		}
		if m := regexp.MustCompile(`lab=(\S+)-\n`).FindSubmatch(text[:n]); m != nil {
			id = string(m[1])
		}
	}
	child.Process.Kill()
	child.Wait()
	if len(leftovers(t, id)) == 0 {
		t.Fatal("the killed process left nothing: this test tests nothing")
	}
	if err := lab.CleanStale(); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, id); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := living.Counters("a"); err != nil {
		t.Errorf("a living lab was harmed: %v", err)
	}
}

func TestBadSpecs(t *testing.T) {
	up := []lab.Uplink{{Name: "a"}}
	for _, c := range []struct {
		spec lab.Spec
		want string
	}{
		{lab.Spec{Name: "", Uplinks: up}, "name"},
		{lab.Spec{Name: "with space", Uplinks: up}, "name"},
		{lab.Spec{Name: "none"}, "uplinks"},
		{lab.Spec{Name: "twice", Uplinks: []lab.Uplink{{Name: "a"}, {Name: "a"}}}, "twice"},
		{lab.Spec{Name: "loss", Uplinks: []lab.Uplink{{Name: "a", Loss: 2}}}, "loss"},
		{lab.Spec{Name: "plain", Uplinks: []lab.Uplink{{Name: "a", Unshaped: true, Rate: 1}}}, "unshaped"},
		{lab.Spec{Name: "many", Uplinks: up, Clients: 1000}, "clients"},
	} {
		l, err := lab.New(c.spec)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want one that names %q", c.spec, err, c.want)
		}
	}
}
