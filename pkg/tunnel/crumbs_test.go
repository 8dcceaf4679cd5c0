package tunnel

import (
	"bytes"
	"testing"

	"hawser/pkg/buffer"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// TestCrumbs: what comes byte by byte, or leaves so and is not consumed, takes little more
// memory than it has bytes, whether in order or not, and stays what it is.
func TestCrumbs(t *testing.T) {
	const bytesSent, most = InitialCredit / 8, 2 * InitialCredit
	pattern := func(i int) byte { return byte(i * 7) }
	for name, at := range map[string]func(i int) int{
		"in order":  func(i int) int { return i },
		"backwards": func(i int) int { return bytesSent - 1 - i },
		"with gaps": func(i int) int { return 2*i + 1 },
	} {
		before := buffer.Live()
		e := newTenant(t, nil)
		e.open(1)
		for i := range bytesSent {
			off := at(i)
			e.frame(wire.Frame{Kind: wire.KindData, Flow: 1, Offset: uint64(off), Length: 1}, buffer.Copy([]byte{pattern(off)}))
		}
		if n := buffer.Live() - before; n > most {
			t.Errorf("%s: %d bytes that have come take %d", name, bytesSent, n)
		}
		got := 0
		for _, events := range e.s.events {
			for _, ev := range events {
				for _, b := range ev.Seg.P {
					if b != pattern(got) {
						t.Fatalf("%s: byte %d is %d", name, got, b)
					}
					got++
				}
				ev.Seg.Release()
			}
		}
		e.s.events = nil
		if name != "with gaps" && got != bytesSent {
			t.Errorf("%s: %d bytes of %d", name, got, bytesSent)
		}
		e.s.dropFlow(e.s.flows[1])
		if n := buffer.Live() - before; n != 0 {
			t.Errorf("%s: %d bytes of slabs are left", name, n)
		}
	}

	before := buffer.Live()
	e := newTenant(t, nil)
	e.open(1)
	for i := range bytesSent {
		e.s.obey(&stream.Command{Kind: stream.CmdSend, Flow: 1, Seg: buffer.Copy([]byte{pattern(i)})})
	}
	if n := buffer.Live() - before; n > most {
		t.Errorf("%d bytes that are kept take %d", bytesSent, n)
	}
	var kept []byte
	for p := e.s.flows[1].send.head; p != nil; p = p.next {
		kept = append(kept, p.seg.P...)
	}
	for i, b := range kept {
		if b != pattern(i) {
			t.Fatalf("byte %d that is kept is %d", i, b)
		}
	}
	large := bytes.Repeat([]byte{1}, crumbMost+1)
	seg := buffer.Copy(large)
	if got := e.s.crumbs.keep(seg); &got.P[0] != &seg.P[0] {
		t.Error("what is not little is copied")
	}
	seg.Release()
	e.s.dropFlow(e.s.flows[1])
	e.s.deliver()
	if n := buffer.Live() - before; n != 0 {
		t.Errorf("%d bytes of slabs are left", n)
	}
}
