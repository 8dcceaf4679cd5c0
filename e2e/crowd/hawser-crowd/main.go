// Program hawser-crowd plays many clients or many servers' connections of a
// benchmark in a process of its own: one process may only hold as many
// descriptors as its limit says. See package crowd.
//
//	hawser-crowd serve -at ADDRESS:PORT[,...] [-flood BYTES] [-buffer BYTES]
//	hawser-crowd hold -to ADDRESS:PORT[,...] -conns N [-rate BYTES] [-buffer BYTES]
//	hawser-crowd push -to ADDRESS:PORT[,...] -from PREFIX -conns N [-buffer BYTES]
//	hawser-crowd echo -at ADDRESS:PORT
//	hawser-crowd ping -to ADDRESS:PORT -n N -size BYTES
//
// They work until standard input ends. They print "listening" or "open". With a
// rate, hold begins to read at the first line of its input, and prints how many
// bytes were read and how many connections ended. push sends as much as it is let,
// and prints at the end how many connections were begun, accepted and ended, and
// how many bytes were acknowledged, in all and at most on one. ping sends a message after the
// other to an echo, and prints how many nanoseconds each took until it was back.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"hawser/e2e/crowd"
	"hawser/pkg/sock"
)

// files is more descriptors than any crowd needs; the limit is raised as far
// as it may be.
const files = 1 << 20

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hawser-crowd:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if _, err := sock.RaiseFileLimit(files); err != nil {
		return err
	}
	verbs := map[string]func([]string) error{"serve": serve, "hold": hold, "push": push, "echo": echo, "ping": ping}
	if len(args) > 0 && verbs[args[0]] != nil {
		return verbs[args[0]](args[1:])
	}
	return fmt.Errorf("want serve, hold, push, echo or ping")
}

// addresses is a list flag.
type addresses []netip.AddrPort

func (a *addresses) String() string { return fmt.Sprint(*a) }

func (a *addresses) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		p, err := netip.ParseAddrPort(part)
		if err != nil {
			return err
		}
		*a = append(*a, p)
	}
	return nil
}

func serve(args []string) error {
	var at addresses
	var s crowd.Server
	f := flag.NewFlagSet("serve", flag.ExitOnError)
	f.Var(&at, "at", "addresses to listen on")
	f.Int64Var(&s.Flood, "flood", 0, "bytes to send on each connection")
	f.IntVar(&s.Buffer, "buffer", 0, "send buffer in bytes")
	_ = f.Parse(args) // ExitOnError
	defer s.Close()
	if err := s.Listen(at...); err != nil {
		return err
	}
	fmt.Println("listening")
	go untilEOF(s.Stop)
	return s.Serve()
}

func hold(args []string) error {
	var to addresses
	var c crowd.Clients
	f := flag.NewFlagSet("hold", flag.ExitOnError)
	f.Var(&to, "to", "servers")
	f.IntVar(&c.Conns, "conns", 0, "connections")
	f.IntVar(&c.Buffer, "buffer", 0, "receive buffer in bytes")
	rate := f.Int("rate", 0, "bytes per second that each connection reads; 0: none")
	limit := f.Duration("limit", 2*time.Minute, "time to open all in")
	_ = f.Parse(args) // ExitOnError
	c.To = to
	defer c.Close()
	began := time.Now()
	if err := c.Open(*limit); err != nil {
		return err
	}
	fmt.Println("open", c.Conns, time.Since(began))
	if *rate == 0 {
		untilEOF(func() {})
		return nil
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return nil // it was never told to begin
	}
	stop := make(chan struct{})
	go untilEOF(func() { close(stop) })
	bytes, ended := c.Read(*rate, stop)
	fmt.Println("read", bytes, ended)
	return nil
}

func push(args []string) error {
	var to addresses
	var p crowd.Pushers
	f := flag.NewFlagSet("push", flag.ExitOnError)
	f.Var(&to, "to", "servers")
	f.TextVar(&p.From, "from", netip.Prefix{}, "addresses of the clients, which must be local")
	f.IntVar(&p.Conns, "conns", 0, "connections")
	f.IntVar(&p.Buffer, "buffer", 0, "send buffer in bytes")
	_ = f.Parse(args) // ExitOnError
	p.To = to
	stop := make(chan struct{})
	go untilEOF(func() { close(stop) })
	r, err := p.Push(stop)
	if err != nil {
		return err
	}
	fmt.Println("pushed", r.Begun, r.Connected, r.Ended, r.Acked, r.Most)
	return nil
}

func echo(args []string) error {
	var at netip.AddrPort
	f := flag.NewFlagSet("echo", flag.ExitOnError)
	f.Func("at", "address to listen on", parsed(&at))
	_ = f.Parse(args) // ExitOnError
	e, err := crowd.NewEchoer(at)
	if err != nil {
		return err
	}
	defer e.Close()
	fmt.Println("listening")
	go untilEOF(e.Stop)
	return e.Serve()
}

func ping(args []string) error {
	var to netip.AddrPort
	f := flag.NewFlagSet("ping", flag.ExitOnError)
	f.Func("to", "server that echoes", parsed(&to))
	n := f.Int("n", 1000, "messages")
	size := f.Int("size", 64, "bytes in each")
	_ = f.Parse(args) // ExitOnError
	took, err := crowd.Ping(to, *n, *size)
	if err != nil {
		return err
	}
	fmt.Print("pinged")
	for _, d := range took {
		fmt.Print(" ", d.Nanoseconds())
	}
	fmt.Println()
	return nil
}

// parsed returns what takes a flag's address.
func parsed(a *netip.AddrPort) func(string) error {
	return func(s string) (err error) {
		*a, err = netip.ParseAddrPort(s)
		return err
	}
}

// untilEOF waits for the end of standard input: the parent has ended, or says
// that it is enough.
func untilEOF(then func()) {
	_, _ = io.Copy(io.Discard, os.Stdin)
	then()
}
