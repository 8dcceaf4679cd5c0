package shield

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"hawser/pkg/guard"
)

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel,bpfeb -cflags "-O2 -Wall -mcpu=v3" shield bpf/shield.c -- -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu

// Ports is an inclusive range of TCP ports.
type Ports struct{ First, Last uint16 }

// Options say which SYNs are answered, and how.
type Options struct {
	Interfaces []string       // where clients are; those without Ethernet are left out
	Hub        int            // index of the interface that the mark steers to
	Mark, Mask uint32         // the mark that steers, and the bits of it
	Ports      []Ports        // wanted destination ports; empty means all
	Leave      []netip.Prefix // destinations that are not answered
	Offer4     guard.Offer    // what SYN-ACKs offer; Window must be 0
	Offer6     guard.Offer
}

// Shield is the program, loaded.
type Shield struct {
	opts    Options
	objects shieldObjects
	state   shieldSettings
	links   map[int]link.Link // by interface index
}

// Counts are what the program has counted.
type Counts struct {
	Answered   uint64 // SYNs answered
	Bad        uint64 // SYNs dropped: absurd options, wrong checksum
	Odd        uint64 // SYNs dropped: IP options, extension headers or fragments
	Left       uint64 // SYNs left to the guard: the host knows the connection
	Recognised uint64 // segments with a valid cookie
	Failed     uint64 // routes that the kernel cannot look up as asked: it is older than 6.10
}

// New loads the program and attaches it nowhere. It fails where the kernel
// lacks something: BPF, BTF, look-ups of connections (6.1).
func New(o Options) (*Shield, error) {
	if o.Offer4.Window != 0 || o.Offer6.Window != 0 {
		return nil, errors.New("shield: an offer has a window: cookies of the kernel offer none")
	}
	spec, err := loadShield()
	if err != nil {
		return nil, fmt.Errorf("shield: %w", err)
	}
	spec.Maps[shieldMapLeave].MaxEntries = uint32(max(len(o.Leave), 1))
	s := &Shield{opts: o, links: map[int]link.Link{}}
	err = spec.LoadAndAssign(&s.objects, nil)
	if err != nil {
		return nil, fmt.Errorf("shield: load the program: %w", err)
	}
	if err := s.fill(); err != nil {
		return nil, errors.Join(fmt.Errorf("shield: %w", err), s.objects.Close())
	}
	return s, nil
}

// fill writes the maps that do not change.
func (s *Shield) fill() error {
	var set [1024]uint64
	ports := s.opts.Ports
	if len(ports) == 0 {
		ports = []Ports{{0, 65535}}
	}
	for _, r := range ports {
		for p := int(r.First); p <= int(r.Last); p++ {
			set[p/64] |= 1 << (p % 64)
		}
	}
	for i, bits := range set {
		if err := s.objects.Ports.Put(uint32(i), bits); err != nil {
			return fmt.Errorf("ports: %w", err)
		}
	}
	for _, p := range s.opts.Leave {
		bits := p.Bits()
		if p.Addr().Is4() {
			bits += 96
		}
		if err := s.objects.Leave.Put(&shieldPrefix{Bits: uint32(bits), Addr: p.Masked().Addr().As16()}, uint32(1)); err != nil {
			return fmt.Errorf("destination %v: %w", p, err)
		}
	}
	s.state = shieldSettings{
		Mark: s.opts.Mark, Mask: s.opts.Mask, Hub: uint32(s.opts.Hub),
		Mss4: s.opts.Offer4.MSS, Mss6: s.opts.Offer6.MSS, Scale: uint32(s.opts.Offer4.Scale),
	}
	return nil
}

// Duty is what the program does.
type Duty struct {
	Answer    bool       // SYNs
	Recognise bool       // ACKs that bring a cookie
	Jar       *guard.Jar // of the cookies
	Clock     uint32     // the time, in units of timestamps
}

// Do changes what the program does where it is attached.
func (s *Shield) Do(d Duty) error {
	now, err := monotonic()
	if err != nil {
		return fmt.Errorf("shield: %w", err)
	}
	next := s.state
	next.Answer, next.Recognise = number(d.Answer), number(d.Recognise)
	if s.state.Answer|s.state.Recognise == 0 {
		// Rounded so that it is never ahead of the timestamps of later segments.
		next.Clock = d.Clock - now - 1
	}
	// A slot's key first and then the slot: the program may run in between, and
	// may see a key half written.
	next.Parity, next.Keys = d.Jar.Keys()
	half := next
	half.Parity = s.state.Parity
	for _, v := range []shieldSettings{half, next} {
		if v == s.state {
			continue
		}
		if err := s.objects.Setup.Put(uint32(0), &v); err != nil {
			return fmt.Errorf("shield: settings: %w", err)
		}
		s.state = v
	}
	return nil
}

func number(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// monotonic is the time that the program sees, in milliseconds.
func monotonic() (uint32, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0, err
	}
	return uint32(t.Nano() / 1e6), nil
}

// Attach puts the program on the client interfaces that are there and do not
// have it yet, in the calling thread's network namespace.
func (s *Shield) Attach() error {
	var errs []error
	there := map[int]bool{}
	for _, name := range s.opts.Interfaces {
		dev, err := net.InterfaceByName(name)
		if err != nil || len(dev.HardwareAddr) != 6 {
			continue
		}
		there[dev.Index] = true
		if s.links[dev.Index] == nil {
			errs = append(errs, s.attach(dev))
		}
	}
	for index, l := range s.links {
		if !there[index] { // the interface has gone, and with it what was attached
			l.Close()
			delete(s.links, index)
		}
	}
	return errors.Join(errs...)
}

// attach puts the program on an interface; on one that has gone since it was looked up
// it is on none, which is no failure: its like may come again.
func (s *Shield) attach(dev *net.Interface) error {
	l, err := link.AttachTCX(link.TCXOptions{Interface: dev.Index, Program: s.objects.Shield, Attach: ebpf.AttachTCXIngress})
	switch {
	case errors.Is(err, syscall.ENODEV):
		return nil
	case err != nil:
		return fmt.Errorf("shield: attach to %s (tcx needs Linux 6.6): %w", dev.Name, err)
	}
	s.links[dev.Index] = l
	return nil
}

// Attached is on how many interfaces the program is.
func (s *Shield) Attached() int { return len(s.links) }

// Detach takes the program off all interfaces.
func (s *Shield) Detach() error {
	var errs []error
	for index, l := range s.links {
		if err := l.Close(); err != nil && !errors.Is(err, syscall.ENODEV) {
			errs = append(errs, fmt.Errorf("shield: detach: %w", err))
		}
		delete(s.links, index)
	}
	return errors.Join(errs...)
}

// Counts returns the figures as they stand.
func (s *Shield) Counts() Counts {
	sum := func(which uint32) (n uint64) {
		var each []uint64
		if s.objects.Counts.Lookup(which, &each) != nil {
			return 0
		}
		for _, v := range each {
			n += v
		}
		return n
	}
	return Counts{Answered: sum(0), Bad: sum(1), Odd: sum(2), Left: sum(3), Recognised: sum(4), Failed: sum(5)}
}

// Verdict is what the program makes of a frame.
type Verdict int

// Verdicts.
const (
	Passed  Verdict = iota // goes its way
	Dropped                // ends here
	Replied                // goes back as the answer
)

// Try runs the program on one frame that is as if it had come in by an
// interface of the calling thread's network namespace. It returns the frame as
// the program has left it and its mark; nothing is sent.
func (s *Shield) Try(frame []byte, index int) (v Verdict, out []byte, mark uint32, err error) {
	const indexAt, markAt, words = 10, 2, 48 // of struct __sk_buff
	var in, back [words]uint32
	in[indexAt] = uint32(index)
	run := ebpf.RunOptions{Data: frame, DataOut: make([]byte, 2048), Context: &in, ContextOut: &back}
	code, err := s.objects.Shield.Run(&run)
	if err != nil {
		return 0, nil, 0, fmt.Errorf("shield: try: %w", err)
	}
	switch int32(code) {
	case tcxNext:
		v = Passed
	case tcShot:
		v = Dropped
	case tcRedirect:
		v = Replied
	default:
		return 0, nil, 0, fmt.Errorf("shield: try: the program returns %d", int32(code))
	}
	return v, run.DataOut, back[markAt], nil
}

// What the program returns: TCX_NEXT (linux/bpf.h), TC_ACT_SHOT and
// TC_ACT_REDIRECT (linux/pkt_cls.h).
const (
	tcxNext    = -1
	tcShot     = 2
	tcRedirect = 7
)

// Close detaches and unloads the program.
func (s *Shield) Close() error { return errors.Join(s.Detach(), s.objects.Close()) }
