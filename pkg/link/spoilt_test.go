package link

import (
	"bytes"
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSpoilt: where batches are lost and single packets are not it shows soon; an outage, and
// a line that loses as radio lines do, are none of it.
func TestSpoilt(t *testing.T) {
	for _, c := range []struct {
		name string
		lost func(i int) bool
		most int // packets until it shows; 0: never
	}{
		{"spoilt", func(i int) bool { return i%5 < 2 }, 300},
		{"radio", func(i int) bool { return i%20 == 0 }, 0},
		{"outages", func(i int) bool { return i%1000 < 300 }, 0},
		{"dead", func(int) bool { return true }, 0},
	} {
		var s spoilt
		var lost, arrived uint64
		shown := 0
		for i := 1; i <= 10_000; i++ {
			if c.lost(i) {
				lost++
			} else {
				arrived++
			}
			if s.look(lost, arrived) && shown == 0 {
				shown = i
			}
		}
		if shown > c.most || c.most > 0 && shown == 0 {
			t.Errorf("%s: shown after %d packets, want %d at most", c.name, shown, c.most)
		}
	}
}

// TestUnbatched: a governor that finds batches spoilt has the edge's socket refuse the next one,
// and nothing else, as a card without checksums does on older kernels: the library sends one by one.
func TestUnbatched(t *testing.T) {
	a, b := newStation(t, "udp4", "127.0.0.1:0"), newStation(t, "udp4", "127.0.0.1:0")
	to := b.LocalAddr().(*net.UDPAddr)
	segments := control(nil, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000, 2)
	marked := control(nil, unix.IPPROTO_IP, unix.IP_TOS, 2, 4)
	send := func(oob []byte) error {
		_, _, err := a.WriteMsgUDP(bytes.Repeat([]byte{1}, 2000), oob, to)
		return err
	}
	g := newGovernor(0, govPacket, 20*ms)
	g.unbatch = (&quicSocket{udp: a.datagrams}).unbatch
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	must(send(segments))
	for range spoiltRow * spoiltLook {
		g.lostPackets.Add(1)
		g.arrived.Add(1)
		g.settle(0, 0, 0)
	}
	must(send(marked))
	if err := send(segments); !errors.Is(err, unix.EIO) {
		t.Errorf("a batch: %v, want %v", err, unix.EIO)
	}
	must(send(segments))
	(*quicSocket)(nil).unbatch() // the cloud's
}
