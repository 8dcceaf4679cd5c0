package resume

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestResume: connections begin with the window that their path has carried, at both
// ends, by IPv4 and IPv6, and others with the kernel's.
func TestResume(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads a BPF program")
	}
	w, err := New()
	if err != nil {
		t.Skipf("this kernel does not: %v", err)
	}
	defer w.Close()
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Skip(err)
		}
		defer l.Close()
		dial := l.Addr().String()
		if listen == ":0" {
			_, port, _ := net.SplitHostPort(dial)
			dial = net.JoinHostPort("127.0.0.1", port) // a mapped address at the listener's end
		}
		if dialled, accepted := windows(t, l, dial); dialled != 10 || accepted != 10 {
			t.Errorf("%s: an unknown path: windows of %d and %d, wanted 10", listen, dialled, accepted)
		}
		to := netip.MustParseAddrPort(dial)
		p := w.Path(to.Addr(), to.Addr(), to.Port())
		// 2 Mbyte/s and 30 ms: 60 packets of 1000 bytes.
		p.Note(time.Now(), 2e6, 30*time.Millisecond, 1000)
		if dialled, accepted := windows(t, l, dial); dialled != 30 || accepted != 30 {
			t.Errorf("%s: windows of %d and %d, wanted 30", listen, dialled, accepted)
		}
		p.Note(time.Now(), 400e6, 30*time.Millisecond, 1000)
		if dialled, accepted := windows(t, l, dial); dialled != 64 || accepted != 64 {
			t.Errorf("%s: a fast path: windows of %d and %d, wanted 64", listen, dialled, accepted)
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// windows are those of the two ends of a fresh connection.
func windows(t *testing.T, l net.Listener, dial string) (dialled, accepted uint32) {
	t.Helper()
	c, err := net.Dial("tcp", dial)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	return window(t, c), window(t, a)
}

func window(t *testing.T, c net.Conn) (n uint32) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		info, failed := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if failed != nil {
			t.Error(failed)
			return
		}
		n = info.Snd_cwnd
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestMounted: where a control group is, by a line of mountinfo.
func TestMounted(t *testing.T) {
	for _, c := range []struct{ line, own, dir string }{
		{"30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw", "/system.slice/a.service", "/sys/fs/cgroup/system.slice/a.service"},
		{"30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw", "/", "/sys/fs/cgroup/unified"},
		{"30 23 0:26 /docker/12 /sys/fs/cgroup ro - cgroup2 cgroup rw", "/docker/12/x", "/sys/fs/cgroup/x"},
		{"30 23 0:26 /docker/12 /sys/fs/cgroup ro - cgroup2 cgroup rw", "/other", ""},
		{"31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", "/", ""},
		{"", "/", ""},
	} {
		if dir, ok := mounted(c.line, c.own); dir != c.dir || ok != (c.dir != "") {
			t.Errorf("%q with %q: %q, wanted %q", c.line, c.own, dir, c.dir)
		}
	}
}

// TestPathsAreBounded: a path is the same for all its connections, and an edge that goes
// from address to address for years does not have all of them remembered.
func TestPathsAreBounded(t *testing.T) {
	w := &Windows{paths: map[resumePath]*Path{}}
	at := netip.MustParseAddr("192.0.2.1")
	first := w.Path(at, at, 1)
	for port := range uint16(3 * most) {
		p := w.Path(at, at, port)
		if again := w.Path(at, at, port); again != p {
			t.Fatalf("port %d has two paths", port)
		}
		if port < most && port != 1 && p == first {
			t.Fatalf("port %d has that of another", port)
		}
		if port == most/2 && w.Path(at, at, 1) != first {
			t.Fatal("a path is forgotten while there is room")
		}
		if len(w.paths) > most {
			t.Fatalf("%d paths are remembered, at most %d wanted", len(w.paths), most)
		}
	}
	if p := w.Path(at, at, 2*most-1); w.Path(at.Next(), at, 2*most-1) == p || w.Path(at, at.Next(), 2*most-1) == p {
		t.Error("two addresses share a path")
	}
	if (*Windows)(nil).Path(at, at, 1) != nil {
		t.Error("where nothing is remembered there is a path")
	}
}
