package netns

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	nsh "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// here stands for the namespace that the thread is in.
var here = nsh.None()

func (w *world) visit(ns nsh.NsHandle, f func() error) error {
	if !ns.IsOpen() {
		return f()
	}
	return inside(ns, f)
}

// serve answers every TCP connection to port in ns with name and the peer's
// address, then echoes.
func (w *world) serve(ns nsh.NsHandle, name string, port int) {
	w.t.Helper()
	var l net.Listener
	must(w.t, w.visit(ns, func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		return err
	}))
	done := make(chan struct{})
	go w.accept(l, name, done)
	w.t.Cleanup(func() { l.Close(); <-done })
}

func (w *world) accept(l net.Listener, name string, done chan<- struct{}) {
	defer close(done)
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		peer := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		fmt.Fprintf(c, "%s %s\n", name, peer)
		go func() { _, _ = io.Copy(c, c); c.Close() }()
	}
}

// bound are the options of a link's socket.
type bound struct {
	mark   int
	device string
	source string
}

func (b bound) control(_, _ string, c syscall.RawConn) (err error) {
	cerr := c.Control(func(fd uintptr) {
		if b.mark != 0 {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, b.mark)
		}
		if b.device != "" && err == nil {
			err = unix.BindToDevice(int(fd), b.device)
		}
	})
	if cerr != nil {
		return cerr
	}
	return err
}

func (w *world) dial(ns nsh.NsHandle, b bound, addr string) (c net.Conn, err error) {
	d := net.Dialer{Timeout: w.patience, Control: b.control}
	if b.source != "" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(b.source), 0))
	}
	err = w.visit(ns, func() (err error) {
		c, err = d.DialContext(context.Background(), "tcp", addr)
		return err
	})
	return c, err
}

// nobody is asked when a connection does not come about.
const nobody = "nobody"

// ask connects to addr from ns and returns who answers: "stack" for the stack
// on the hub, else the server's name and the address that it sees.
func (w *world) ask(ns nsh.NsHandle, b bound, addr string) string {
	w.t.Helper()
	c, err := w.dial(ns, b, addr)
	if err != nil {
		return nobody
	}
	defer c.Close()
	return w.talk(c)
}

func (w *world) talk(c net.Conn) string {
	w.t.Helper()
	must(w.t, c.SetDeadline(time.Now().Add(patient)))
	if _, err := c.Write([]byte("stack\n")); err != nil {
		return "error " + err.Error()
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil || n == 0 {
		return fmt.Sprint("error ", err)
	}
	first, _, _ := strings.Cut(string(buf[:n]), "\n")
	return first
}

// asks runs ask and compares.
func (w *world) asks(when string, ns nsh.NsHandle, b bound, addr, want string) {
	w.t.Helper()
	if got := w.ask(ns, b, addr); got != want {
		w.t.Errorf("%s: %s is answered by %q, want %q", when, addr, got, want)
	}
}

// ping tells whether an echo request from ns is answered.
func (w *world) ping(ns nsh.NsHandle, addr string) bool {
	network, kind := "ip4:icmp", byte(8)
	if netip.MustParseAddr(addr).Is6() {
		network, kind = "ip6:ipv6-icmp", 128
	}
	ok := false
	must(w.t, w.visit(ns, func() error {
		c, err := net.Dial(network, addr)
		if err != nil {
			return nil
		}
		defer c.Close()
		must(w.t, c.SetDeadline(time.Now().Add(w.patience)))
		m := []byte{kind, 0, 0, 0, 0x12, 0x34, 0, 1}
		if kind == 8 { // the kernel computes the checksum of ICMPv6
			sum := checksum(m)
			m[2], m[3] = byte(sum>>8), byte(sum)
		}
		if _, err := c.Write(m); err != nil {
			return nil
		}
		buf := make([]byte, 1500)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return nil
			}
			if kind == 8 { // read with the IP header
				copy(buf, buf[20:n])
			}
			if n >= 8 && (buf[0] == 0 || buf[0] == 129) { // an echo reply
				ok = true
				return nil
			}
		}
	}))
	return ok
}

// udp tells whether a datagram from ns to addr is echoed.
func (w *world) udp(ns nsh.NsHandle, addr string) bool {
	ok := false
	must(w.t, w.visit(ns, func() error {
		c, err := net.Dial("udp", addr)
		if err != nil {
			return nil
		}
		defer c.Close()
		must(w.t, c.SetDeadline(time.Now().Add(w.patience)))
		if _, err := c.Write([]byte("x")); err != nil {
			return nil
		}
		_, err = c.Read(make([]byte, 1))
		ok = err == nil
		return nil
	}))
	return ok
}

func (w *world) serveUDP(ns nsh.NsHandle, addr string) {
	w.t.Helper()
	var c net.PacketConn
	must(w.t, w.visit(ns, func() (err error) {
		c, err = net.ListenPacket("udp", addr)
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 100)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
	w.t.Cleanup(func() { c.Close(); <-done })
}
