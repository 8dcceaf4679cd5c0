package nonblock

import (
	"bytes"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pairOf returns both ends of a non-blocking pair of sockets.
func pairOf(t *testing.T) [2]int {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds
}

func TestNothingThere(t *testing.T) {
	fds := pairOf(t)
	p := make([]byte, 8)
	var v Vectors
	if n, err := Read(fds[0], p); n != 0 || err != unix.EAGAIN {
		t.Errorf("Read: %d, %v, want 0, EAGAIN", n, err)
	}
	if n, err := v.Readv(fds[0], [][]byte{p}); n != 0 || err != unix.EAGAIN {
		t.Errorf("Readv: %d, %v, want 0, EAGAIN", n, err)
	}
	if n, err := Write(-1, p); n != 0 || err != unix.EBADF {
		t.Errorf("Write: %d, %v, want 0, EBADF", n, err)
	}
	msgs := [1]struct {
		unix.Msghdr
		len uint64
	}{}
	if _, errno := Mmsg(unix.SYS_RECVMMSG, uintptr(fds[0]), unsafe.Pointer(&msgs), 1); errno != unix.EAGAIN {
		t.Errorf("Mmsg: %v, want EAGAIN", errno)
	}
	for fullFor := 0; ; fullFor++ {
		if _, err := Write(fds[0], make([]byte, 64<<10)); err == unix.EAGAIN {
			break
		}
		if fullFor > 1000 {
			t.Fatal("a socket that nobody reads is never full")
		}
	}
}

func TestBytesArriveInOrder(t *testing.T) {
	fds := pairOf(t)
	var v Vectors
	if n, err := v.Writev(fds[0], [][]byte{[]byte("one "), nil, []byte("two "), {}}); n != 8 || err != nil {
		t.Fatalf("Writev: %d, %v, want 8", n, err)
	}
	if n, err := Write(fds[0], []byte("three")); n != 5 || err != nil {
		t.Fatalf("Write: %d, %v, want 5", n, err)
	}
	a, b, c := make([]byte, 3), make([]byte, 6), make([]byte, 100)
	if n, err := v.Readv(fds[1], [][]byte{a, nil, b}); n != 9 || err != nil {
		t.Fatalf("Readv: %d, %v, want 9", n, err)
	}
	n, err := Read(fds[1], c)
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Join([][]byte{a, b, c[:n]}, nil); string(got) != "one two three" {
		t.Errorf("got %q", got)
	}
}

func TestMostVectors(t *testing.T) {
	fds := pairOf(t)
	bufs := make([][]byte, MaxVectors+10)
	for i := range bufs {
		bufs[i] = []byte{byte(i)}
	}
	var v Vectors
	if n, err := v.Writev(fds[0], bufs); n != MaxVectors || err != nil {
		t.Fatalf("Writev: %d, %v, want %d", n, err, MaxVectors)
	}
}

func TestPoll(t *testing.T) {
	fds := pairOf(t)
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epoll)
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fds[1]), Pad: 7}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fds[1], &ev); err != nil {
		t.Fatal(err)
	}
	events := make([]unix.EpollEvent, 4)
	if n, err := Poll(epoll, events); n != 0 || err != nil {
		t.Fatalf("at rest: %d, %v, want 0", n, err)
	}
	_, _ = Write(fds[0], []byte("x"))
	if n, err := Poll(epoll, events); n != 1 || err != nil || events[0].Pad != 7 {
		t.Fatalf("readable: %d, %v, %+v", n, err, events[0])
	}
}

// TestNoAllocations also shows that no reference to a buffer stays.
func TestNoAllocations(t *testing.T) {
	fds := pairOf(t)
	bufs := [][]byte{make([]byte, 100), make([]byte, 200)}
	in := make([]byte, 300)
	var v Vectors
	n := testing.AllocsPerRun(100, func() {
		_, _ = v.Writev(fds[0], bufs)
		_, _ = Read(fds[1], in)
		_, _ = Read(fds[1], in) // EAGAIN
	})
	if n != 0 && !raced {
		t.Errorf("%v allocations per round, want 0", n)
	}
	for _, iov := range v.iovs[:cap(v.iovs)] {
		if iov.Base != nil {
			t.Error("a reference to a buffer was kept")
		}
	}
}

func TestOptions(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := SetInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		t.Error(err)
	}
	if v, err := GetInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); v == 0 || err != nil {
		t.Errorf("TCP_NODELAY is %d, %v", v, err)
	}
	if err := SetLinger(fd, unix.Linger{Onoff: 1, Linger: 7}); err != nil {
		t.Error(err)
	}
	if l, err := unix.GetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER); err != nil || l.Onoff != 1 || l.Linger != 7 {
		t.Errorf("SO_LINGER is %+v, %v", l, err)
	}
	var info unix.TCPInfo
	if err := TCPInfo(fd, &info); err != nil || info.Snd_mss == 0 {
		t.Errorf("TCP_INFO: %v, segments of %d bytes", err, info.Snd_mss)
	}
	if err := Shutdown(fd, unix.SHUT_WR); err != unix.ENOTCONN {
		t.Errorf("Shutdown: %v, want ENOTCONN", err)
	}
	if err := Close(fd); err != nil {
		t.Error(err)
	}
	if _, err := GetInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != unix.EBADF {
		t.Errorf("after Close: %v, want EBADF", err)
	}
}

// TestEndpoints: both ends of a connection agree about who they are.
func TestEndpoints(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			at := netip.AddrPortFrom(netip.MustParseAddr(host), 0)
			family := unix.AF_INET6
			if at.Addr().Is4() {
				family = unix.AF_INET
			}
			open := func() int {
				fd, err := Socket(family)
				if err != nil {
					t.Skip(err) // no such family here
				}
				t.Cleanup(func() { unix.Close(fd) })
				return fd
			}
			listener, client := open(), open()
			if err := unix.Listen(listener, 1); err != nil { // at a port of the kernel's
				t.Fatal(err)
			}
			bound, err := Local(listener)
			if err != nil || bound.Port() == 0 || !bound.Addr().IsUnspecified() {
				t.Fatalf("the listener is at %v, %v", bound, err)
			}
			if _, _, err := Accept(listener); err != unix.EAGAIN {
				t.Errorf("nobody there: %v, want EAGAIN", err)
			}
			to := netip.AddrPortFrom(at.Addr(), bound.Port())
			if err := Connect(client, to); err == unix.EADDRNOTAVAIL {
				t.Skip(err)
			} else if err != nil && err != unix.EINPROGRESS {
				t.Fatal(err)
			}
			fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, 10_000); err != nil {
				t.Fatal(err)
			}
			server, from, err := Accept(listener)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(server)
			if flags, _ := unix.FcntlInt(uintptr(server), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
				t.Error("what was accepted blocks")
			}
			if name, err := Local(client); err != nil || name != from || name.Addr() != at.Addr() {
				t.Errorf("the client is %v, %v; accepted %v", name, err, from)
			}
			if name, err := Local(server); err != nil || name != to {
				t.Errorf("the server is %v, %v; want %v", name, err, to)
			}
			if n := testing.AllocsPerRun(10, func() { _, _ = Local(server) }); n != 0 && !raced {
				t.Errorf("%v allocations per Local, want 0", n)
			}
		})
	}
	if err := Connect(-1, netip.MustParseAddrPort("127.0.0.1:1")); err != unix.EBADF {
		t.Errorf("Connect: %v, want EBADF", err)
	}
	if err := Watch(-1, unix.EPOLL_CTL_ADD, 0, &unix.EpollEvent{}); err != unix.EBADF {
		t.Errorf("Watch: %v, want EBADF", err)
	}
}
