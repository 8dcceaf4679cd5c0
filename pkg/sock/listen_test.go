package sock

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/party"
)

// accepted makes a connection to a listener, which listen opens, and returns
// both ends.
func accepted(t *testing.T, dst netip.AddrPort, listen func(p *Poller, accept func(*Conn)) (*Listener, error)) (*end, net.Conn) {
	t.Helper()
	r := newRig(t)
	var got *end
	l, err := listen(r.p, func(c *Conn) { got = r.watch(c) })
	must(t, err)
	t.Cleanup(l.Close)
	if !dst.IsValid() {
		dst = l.Addr()
	}
	client, err := net.DialTimeout("tcp", dst.String(), time.Minute)
	must(t, err)
	t.Cleanup(func() { client.Close() })
	for limit := time.Now().Add(time.Minute); got == nil; {
		must(t, r.p.Wait(time.Second))
		if time.Now().After(limit) {
			t.Fatal("nothing accepted")
		}
	}
	return got, client
}

func plainListener(p *Poller, accept func(*Conn)) (*Listener, error) {
	return Listen(p, netip.MustParseAddrPort("127.0.0.1:0"), accept)
}

// TestAcceptedInherits: accepting sets no options; the kernel copies them.
func TestAcceptedInherits(t *testing.T) {
	c, _ := accepted(t, netip.AddrPort{}, plainListener)
	for _, o := range []option{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepIdle}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepInterval},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepCount}, {unix.SOL_SOCKET, unix.SO_LINGER, 1},
	} {
		if got, err := unix.GetsockoptInt(c.fd, o.level, o.name); err != nil || got != o.value {
			t.Errorf("option %d/%d is %d, %v; want %d", o.level, o.name, got, err, o.value)
		}
	}
}

// TestCloseDeliversAll: what was written before Close reaches a slow reader,
// followed by the end, although a socket that goes without Close is reset.
func TestCloseDeliversAll(t *testing.T) {
	c, client := accepted(t, netip.AddrPort{}, plainListener)
	sent := 0
	for buf := make([]byte, 64<<10); ; {
		n, err := c.Write(buf)
		sent += n
		if errors.Is(err, party.ErrAgain) {
			break
		}
		must(t, err)
	}
	must(t, c.CloseWrite())
	c.Close()
	if n, err := io.Copy(io.Discard, client); err != nil || n != int64(sent) {
		t.Errorf("%d of %d bytes arrive, %v", n, sent, err)
	}
}

// TestListenerEnds: connections that nobody has accepted are reset.
func TestListenerEnds(t *testing.T) {
	r := newRig(t)
	l, err := Listen(r.p, netip.MustParseAddrPort("127.0.0.1:0"), func(c *Conn) { c.Abort() })
	must(t, err)
	client, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer client.Close()
	l.Close()
	must(t, client.SetDeadline(time.Now().Add(time.Minute)))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
}

// TestOutOfDescriptors: a connection that came while there was no descriptor for it is
// accepted when there is one, although no other comes.
func TestOutOfDescriptors(t *testing.T) {
	r := newRig(t)
	var got *Conn
	l, err := Listen(r.p, netip.MustParseAddrPort("127.0.0.1:0"), func(c *Conn) { got = c })
	must(t, err)
	t.Cleanup(l.Close)
	client, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer client.Close()
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	// None at all: what a test before has left may be closed meanwhile, and its number is free then.
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: was.Max}))
	var told error
	r.p.Unaccepted = func(why error) { told = why }
	for range 5 {
		if err := r.p.Wait(2 * acceptPause); err != nil {
			t.Error(err)
		}
	}
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
	if got != nil {
		t.Fatal("accepted without a descriptor")
	}
	if !errors.Is(told, unix.EMFILE) {
		t.Errorf("told %v", told)
	}
	for limit := time.Now().Add(5 * time.Second); got == nil; {
		if time.Now().After(limit) {
			t.Fatal("not accepted within 5 s")
		}
		must(t, r.p.Wait(time.Second))
	}
	got.Abort()
	if len(r.p.stuck) != 0 {
		t.Error("the listener tries on")
	}
}

// TestTransparent: a listener takes connections to addresses that are not the
// host's, says which, and marks what it sends.
func TestTransparent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	for _, c := range []struct{ tables, loop, server string }{
		{"iptables", "127.0.0.1", "198.18.100.1"}, {"ip6tables", "::1", "fd00:64::1"},
	} {
		t.Run(c.tables, func(t *testing.T) {
			ownSpace(t)
			loop := netip.MustParseAddr(c.loop)
			const mark = 0x40000000
			listen := func(p *Poller, accept func(*Conn)) (*Listener, error) {
				l, err := ListenTransparent(p, netip.AddrPortFrom(loop, 0), mark, accept)
				must(t, err)
				if second, err := ListenTransparent(p, l.Addr(), mark, accept); err != nil {
					t.Errorf("beside another worker: %v", err)
				} else {
					second.Close()
				}
				tproxy(t, c.tables, l.Addr())
				return l, nil
			}
			server := netip.AddrPortFrom(netip.MustParseAddr(c.server), 80)
			got, client := accepted(t, server, listen)
			if got.Local() != server || got.Remote().String() != client.LocalAddr().String() {
				t.Errorf("accepted %v -> %v", got.Remote(), got.Local())
			}
			if m, err := unix.GetsockoptInt(got.fd, unix.SOL_SOCKET, unix.SO_MARK); err != nil || m != mark {
				t.Errorf("mark %#x, %v", m, err)
			}
			_, err := got.Write([]byte("hello"))
			must(t, err)
			buf := make([]byte, 5)
			must(t, client.SetDeadline(time.Now().Add(time.Minute)))
			if _, err := io.ReadFull(client, buf); err != nil || string(buf) != "hello" {
				t.Errorf("the client reads %q, %v", buf, err)
			}
		})
	}
}

// ownSpace binds the test to a thread in a new network namespace, which ends
// with it.
func ownSpace(t *testing.T) {
	runtime.LockOSThread() // never unlocked
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	shell(t, "ip link set lo up && ip addr add 198.18.1.1/32 dev lo && ip addr add fd00:1::1/128 dev lo nodad")
}

func shell(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Skipf("needs ip, iptables and a kernel with TPROXY: %s: %v: %s", command, err, out)
	}
}

// tproxy sends connections of this host itself to a listener: they are routed
// to lo, where they arrive.
func tproxy(t *testing.T, tables string, to netip.AddrPort) {
	ip := "ip"
	if to.Addr().Is6() {
		ip = "ip -6"
	}
	shell(t, ip+" route add local default dev lo table 99 && "+ip+" rule add fwmark 1 lookup 99")
	shell(t, ip+" route add default dev lo")
	shell(t, tables+" -t mangle -A OUTPUT -p tcp --dport 80 -j MARK --set-mark 1")
	shell(t, tables+" -t mangle -A PREROUTING -p tcp --dport 80 -j TPROXY --on-ip "+to.Addr().String()+
		" --on-port "+strconv.Itoa(int(to.Port()))+" --tproxy-mark 1")
}

func TestRaiseFileLimit(t *testing.T) {
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was)) }()
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 500, Max: was.Max}))
	if n, err := RaiseFileLimit(400); err != nil || n != 500 {
		t.Errorf("a limit that is higher: %d, %v", n, err)
	}
	n, err := RaiseFileLimit(was.Max + 1)
	if err != nil || n < was.Max {
		t.Errorf("raised to %d, %v; the hard limit is %d", n, err, was.Max)
	}
	var now unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &now))
	if now.Cur != n {
		t.Errorf("the kernel says %d, want %d", now.Cur, n)
	}
}

// TestLinkLocal: addresses that mean something on one interface only are listened on and
// dialled there.
func TestLinkLocal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	ownSpace(t)
	shell(t, "ip link add lan0 type veth peer name lan1 && ip link set lan0 up && ip link set lan1 up && ip addr add fe80::77/64 dev lan0 nodad")
	r := newRig(t)
	var got *Conn
	l, err := Listen(r.p, netip.MustParseAddrPort("[fe80::77%lan0]:0"), func(c *Conn) { got = c })
	must(t, err)
	t.Cleanup(l.Close)
	at := netip.AddrPortFrom(netip.MustParseAddr("fe80::77%lan0"), l.Addr().Port())
	c, err := Dial(r.p, at, 0, "")
	must(t, err)
	e := r.watch(c)
	for limit := time.Now().Add(time.Minute); got == nil || errors.Is(e.Connected(), party.ErrAgain); {
		if time.Now().After(limit) {
			t.Fatal("not connected within a minute")
		}
		must(t, r.p.Wait(10*time.Millisecond))
	}
	must(t, e.Connected())
	got.Abort()
	c.Abort()
	if _, err := Dial(r.p, netip.MustParseAddrPort("[fe80::77%lan9]:80"), 0, ""); !errors.Is(err, party.ErrUnreachable) {
		t.Errorf("by an interface that is not there: %v", err)
	}
}
