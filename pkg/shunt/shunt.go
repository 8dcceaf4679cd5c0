package shunt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel,bpfeb -cflags "-O2 -Wall -mcpu=v3" -type path -type bucket -type passed shunt bpf/shunt.c -- -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu

// DefaultPlaces is the usual number of connections: 1.8 MB of maps.
const DefaultPlaces = 16 << 10

const (
	perBucket = 8 // entries; half of them are used when all places are taken
	placeBits = 20
	tick      = 20 // of the program's clock: 2^20 ns
	maxPlaces = 1<<placeBits - 1
)

// Options make a Shunt.
type Options struct {
	Hub        int        // index of hub0, in the network namespace of New's thread
	Hub4, Hub6 netip.Addr // the stack's addresses; a family without one is left alone
	Workers    int        // how many tables share it
	Places     int        // most connections; 0 = DefaultPlaces
}

// Shunt is the program, at work.
type Shunt struct {
	objects shuntObjects
	link    link.Link
	memory  [][]byte // of the maps
	paths   []shuntPath
	buckets []shuntBucket
	seed    uint32
	opts    Options

	start time.Time // and what the program's clock showed then, in ns
	clock uint64
}

// New loads the program and attaches it to the hub. It fails where the kernel
// lacks something: BPF, maps in memory, tcx (6.6).
func New(o Options) (*Shunt, error) {
	if o.Places == 0 {
		o.Places = DefaultPlaces
	}
	if o.Workers < 1 || o.Workers > 256 || o.Places < o.Workers || o.Places > maxPlaces {
		return nil, fmt.Errorf("shunt: Places: %d for %d workers", o.Places, o.Workers)
	}
	s := &Shunt{opts: o, seed: rand.Uint32(), start: time.Now()}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, fmt.Errorf("shunt: clock: %w", err)
	}
	s.clock = uint64(now.Nano())
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("shunt: %w", err), s.Close())
	}
	return s, nil
}

// load loads the program, maps its maps and attaches it.
func (s *Shunt) load() error {
	spec, err := loadShunt()
	if err != nil {
		return err
	}
	buckets := uint32(1) << bits.Len32(uint32(max(s.opts.Places*4/perBucket-1, 0)))
	spec.Maps[shuntMapPaths].MaxEntries = uint32(s.opts.Places)
	spec.Maps[shuntMapPlaces].MaxEntries = buckets
	spec.Maps[shuntMapCounts].MaxEntries = uint32(s.opts.Workers)
	for name, v := range map[string]any{"hub4": word(s.opts.Hub4), "hub6": words(s.opts.Hub6), "mask": buckets - 1, "seed": s.seed} {
		if err := spec.Variables[name].Set(v); err != nil {
			return fmt.Errorf("variable %s: %w", name, err)
		}
	}
	if err := spec.LoadAndAssign(&s.objects, nil); err != nil {
		return fmt.Errorf("load the program: %w", err)
	}
	if s.paths, err = mapped[shuntPath](s, s.objects.Paths); err == nil {
		s.buckets, err = mapped[shuntBucket](s, s.objects.Places)
	}
	if err != nil {
		return fmt.Errorf("its maps: %w", err)
	}
	s.link, err = link.AttachTCX(link.TCXOptions{Interface: s.opts.Hub, Program: s.objects.Shunt, Attach: ebpf.AttachTCXEgress})
	if err != nil {
		return fmt.Errorf("attach to the hub (tcx needs Linux 6.6): %w", err)
	}
	return nil
}

// mapped are an array map's values, in the agent's memory.
func mapped[T any](s *Shunt, m *ebpf.Map) ([]T, error) {
	n := int(m.MaxEntries())
	size := n * int(unsafe.Sizeof(*new(T)))
	b, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	s.memory = append(s.memory, b)
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n), nil
}

// word is an IPv4 address as it stands in a header, words one of IPv6; of none
// they are what no packet is sent to.
func word(a netip.Addr) uint32 {
	if !a.Is4() {
		return 0
	}
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func words(a netip.Addr) (w [4]uint32) {
	if !a.Is6() {
		return w
	}
	b := a.As16()
	return fourWords(&b)
}

func fourWords(b *[16]byte) (w [4]uint32) {
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

// now is the program's clock, in ticks.
func (s *Shunt) now() uint32 { return uint32((s.clock + uint64(time.Since(s.start))) >> tick) }

// Close detaches and unloads the program. What it carried comes to the tables
// then; these are not to be used any more with the shunt's workers.
func (s *Shunt) Close() error {
	var errs []error
	if s.link != nil {
		errs = append(errs, s.link.Close())
	}
	s.paths, s.buckets = nil, nil
	for _, b := range s.memory {
		errs = append(errs, unix.Munmap(b))
	}
	s.memory = nil
	errs = append(errs, s.objects.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("shunt: %w", err)
	}
	return nil
}

// Try runs the program on one frame that the host is about to send to the hub,
// from the network namespace of the calling thread. segment is the payload per
// segment of a frame that stands for several, else 0. It returns the frame as the
// program has left it, and whether it is turned round; nothing is sent.
func (s *Shunt) Try(frame []byte, segment int) (out []byte, turned bool, err error) {
	const indexAt, gsoSizeAt, words = 10, 44, 48 // of struct __sk_buff, in words
	var in [words]uint32
	in[indexAt], in[gsoSizeAt] = uint32(s.opts.Hub), uint32(segment)
	run := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: &in}
	code, err := s.objects.Shunt.Run(&run)
	if err != nil {
		return nil, false, fmt.Errorf("shunt: try: %w", err)
	}
	switch int32(code) {
	case tcxNext:
		return run.DataOut, false, nil
	case tcRedirect:
		return run.DataOut, true, nil
	}
	return nil, false, fmt.Errorf("shunt: try: the program returns %d", int32(code))
}

// What the program returns: TCX_NEXT (linux/bpf.h) and TC_ACT_REDIRECT
// (linux/pkt_cls.h).
const (
	tcxNext    = -1
	tcRedirect = 7
)
