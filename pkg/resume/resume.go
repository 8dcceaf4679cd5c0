package resume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"hawser/pkg/bbr"
)

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel,bpfeb -cflags "-O2 -Wall -mcpu=v3" resume bpf/resume.c -- -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu

const (
	kept   = 10 * time.Second // for which the program believes an entry that nothing renews
	renew  = 2 * time.Second  // until an entry is written again, at least
	differ = 8                // that part of a window is worth to be written at once
	most   = 4096             // paths that are remembered
)

// Windows are the paths of all links. A nil *Windows remembers nothing.
type Windows struct {
	objects resumeObjects
	link    link.Link

	mu    sync.Mutex
	paths map[resumePath]*Path // guarded by mu
}

// New loads the program and attaches it to the control group that the agent is in.
// It fails where the kernel lacks something, or the right to do so is missing.
func New() (*Windows, error) {
	w := &Windows{paths: map[resumePath]*Path{}}
	if err := loadResumeObjects(&w.objects, nil); err != nil {
		return nil, fmt.Errorf("resume: load the program: %w", err)
	}
	if err := w.attach(); err != nil {
		return nil, errors.Join(fmt.Errorf("resume: attach to the control group: %w", err), w.objects.Close())
	}
	return w, nil
}

func (w *Windows) attach() error {
	dir, err := group()
	if err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	// As a link, which goes with the process.
	w.link, err = link.AttachRawLink(link.RawLinkOptions{Target: int(f.Fd()), Program: w.objects.Resume, Attach: ebpf.AttachCGroupSockOps})
	return err
}

// Close detaches the program. What it has given connections stays.
func (w *Windows) Close() error {
	if w == nil {
		return nil
	}
	return errors.Join(w.link.Close(), w.objects.Close())
}

// Path is what is known of a path.
type Path struct {
	windows *Windows
	key     resumePath

	mu      sync.Mutex
	recall  bbr.Recall
	packets int       // written last
	written time.Time // when that was
}

// Path returns the path between two addresses, over which a cloud's port is
// connected to. It is the same for all connections.
func (w *Windows) Path(local, remote netip.Addr, port uint16) *Path {
	if w == nil {
		return nil
	}
	key := resumePath{Local: words(local), Remote: words(remote), Port: uint32(port)}
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.paths[key]
	if p == nil {
		if len(w.paths) >= most {
			w.paths = map[resumePath]*Path{} // rather than to look for old ones: it is learned again in a second
		}
		p = &Path{windows: w, key: key}
		w.paths[key] = p
	}
	return p
}

// Note takes in a rate in bytes per second and a least round trip that a connection
// holds to be the path's, and how long its packets are.
func (p *Path) Note(now time.Time, rate float64, least time.Duration, packet int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recall.Note(now, rate, least)
	n := p.recall.Packets(now, packet)
	if d := n - p.packets; now.Sub(p.written) < renew && max(d, -d) <= p.packets/differ {
		return
	}
	until, err := monotonic()
	if err != nil {
		return
	}
	p.packets, p.written = n, now
	// Where that fails connections begin as usual.
	_ = p.windows.objects.Windows.Put(&p.key, &resumeWindow{Until: until + uint64(kept), Packets: uint64(n)})
}

// words is an address in network byte order, IPv4 mapped.
func words(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

// monotonic is the time that the program sees, in nanoseconds.
func monotonic() (uint64, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0, err
	}
	return uint64(t.Nano()), nil
}
