package emu

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	ringSlots = 4096    // frames that may arrive while the pump sleeps or is kept from running
	ringBlock = 1 << 16 // bytes of contiguous kernel memory
)

// ring is a TPACKET_V2 receive ring (linux/Documentation/networking/packet_mmap.rst).
// The kernel writes each frame with its arrival time, so the pump may sleep through
// many arrivals, read them in one pass without a system call, and still knows when
// each came. V3 would batch by itself, but its timer is no finer than a jiffy.
type ring struct {
	mem  []byte
	slot int // bytes
	next int // index of the slot to read
	n    int
}

// openRing gives the packet socket a ring whose slots hold frames of up to frame bytes.
func openRing(fd, frame int) (*ring, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return nil, fmt.Errorf("packet version 2: %w", err)
	}
	slot := 2048
	for slot < frame+128 { // header, alignment and room for them
		slot *= 2
	}
	req := unix.TpacketReq{
		Block_size: uint32(max(ringBlock, slot)),
		Frame_size: uint32(slot),
		Frame_nr:   ringSlots,
	}
	req.Block_nr = req.Frame_nr * req.Frame_size / req.Block_size
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, fmt.Errorf("receive ring: %w", err)
	}
	size := int(req.Block_nr * req.Block_size)
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map receive ring: %w", err)
	}
	return &ring{mem: mem, slot: slot, n: ringSlots}, nil
}

// arrival is a frame in the ring. Its bytes are valid until the ring's release.
type arrival struct {
	frame []byte
	whole bool          // false if longer than the slot, or if a VLAN tag was taken out of it
	at    time.Duration // since the Unix epoch
}

// peek returns the oldest unread frame, which stays in the ring until release.
func (r *ring) peek() (arrival, bool) {
	base := r.mem[r.next*r.slot : (r.next+1)*r.slot]
	hdr := (*unix.Tpacket2Hdr)(unsafe.Pointer(&base[0]))
	status := atomic.LoadUint32(&hdr.Status)
	if status&unix.TP_STATUS_USER == 0 {
		return arrival{}, false
	}
	return arrival{
		frame: base[hdr.Mac : uint32(hdr.Mac)+hdr.Snaplen],
		whole: hdr.Snaplen == hdr.Len && status&unix.TP_STATUS_VLAN_VALID == 0,
		at:    time.Duration(hdr.Sec)*time.Second + time.Duration(hdr.Nsec),
	}, true
}

// release gives the slot of the frame that peek returned back to the kernel.
func (r *ring) release() {
	hdr := (*unix.Tpacket2Hdr)(unsafe.Pointer(&r.mem[r.next*r.slot]))
	atomic.StoreUint32(&hdr.Status, unix.TP_STATUS_KERNEL)
	r.next = (r.next + 1) % r.n
}

func (r *ring) close() error { return unix.Munmap(r.mem) }
