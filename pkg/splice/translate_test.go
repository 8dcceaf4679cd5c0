package splice

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// TestNumbers: numbers of both directions, wherever in the sequence space they
// lie, SACK blocks and timestamps included.
func TestNumbers(t *testing.T) {
	const top = 1<<32 - 1
	for _, n := range [][3]uint32{{1000, 5000, 900000}, {top, top, top}, {top - 3, 5, top - 1}, {0, top - 2, 1 << 31}, {1 << 31, 1<<31 - 1, 0}} {
		both(t, func(t *testing.T, u setup) {
			u.iss, u.isn, u.srv = n[0], n[1], n[2]
			u.answers.Val = n[2]
			w := spliced(t, u)
			told := w.table.at(0).told
			for at := uint32(0); at < 40; at += 4 { // across the wrap
				sack := func(base uint32) []byte {
					b := []byte{optNop, optNop, optSACK, 10}
					return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, base+at+8), base+at+12)
				}
				c := w.fromClient(flagPSH, u.iss+1+at, u.isn+1+at, "data", append(appendStamps(nil, 200+at, told), sack(u.isn)...)...)
				s := w.forward(c)
				want := append(appendStamps(nil, 200+at, u.answers.Val), sack(u.srv)...)
				if s.src != w.hub || s.seq != u.iss+1+at || s.ack != u.srv+1+at || s.window != 1000 || !bytes.Equal(s.opts, want) || string(s.data) != "data" {
					t.Fatalf("the server gets %+v", s)
				}
				s = w.forward(w.fromServer(flagPSH, u.srv+1+at, u.iss+5+at, "back", append(appendStamps(nil, u.answers.Val+at, 200+at), sack(u.iss)...)...))
				want = append(appendStamps(nil, told+at, 200+at), sack(u.iss)...)
				if s.dst != w.c || s.seq != u.isn+1+at || s.ack != u.iss+5+at || s.window != 2000<<9>>7 || !bytes.Equal(s.opts, want) {
					t.Fatalf("the client gets %+v", s)
				}
			}
		})
	}
}

// TestWindows: the scales of both sides.
func TestWindows(t *testing.T) {
	for _, c := range []struct {
		client, server   int8
		raw, up          uint16 // the client's window, and what the server is told
		raw2, down, syns uint16 // the server's window, what the client is told, and from the SYN-ACK
	}{
		{7, 7, 500, 500, 300, 300, 300 >> 7},
		{2, 9, 500, 500, 300, 1200, 300 >> 7},
		{9, 2, 500, 500, 300, 9, 300 >> 7},
		{9, 14, 500, 500, 60000, 65535, 60000 >> 7},
		{4, NoScale, 500, 8000, 60000, 468, 60000 >> 7},
		{4, NoScale, 5000, 65535, 100, 0, 0},
		{NoScale, NoScale, 500, 500, 300, 300, 300},
		{NoScale, 7, 500, 500, 300, 300, 300}, // a server that answers what was not offered
	} {
		t.Run(fmt.Sprintf("%d and %d", c.client, c.server), func(t *testing.T) {
			u := modern()
			u.offers.Scale, u.answers.Scale = c.client, c.server
			w, _ := call(t, u)
			w.swallow(tcp{src: w.s, dst: w.hub, flags: flagSYN | flagACK, seq: u.srv, ack: u.iss + 1, window: c.raw2, opts: u.answers.appendTo(nil)})
			if s := w.took(); s[1].window != c.syns {
				t.Errorf("first window %d, want %d", s[1].window, c.syns)
			}
			up := w.fromClient(0, u.iss+1, u.isn+1, "")
			up.window = c.raw
			down := w.fromServer(0, u.srv+1, u.iss+1, "")
			down.window = c.raw2
			if a, b := w.forward(up).window, w.forward(down).window; a != c.up || b != c.down {
				t.Errorf("server is told %d, want %d; client %d, want %d", a, c.up, b, c.down)
			}
		})
	}
}

// TestPlainServer: what the server does not speak is kept from it, and
// timestamps are made for the client.
func TestPlainServer(t *testing.T) {
	both(t, func(t *testing.T, u setup) {
		u.answers = Options{MSS: 1460, Scale: NoScale}
		w := spliced(t, u)
		told := w.table.at(0).told
		opts := append(appendStamps(nil, 300, told), optNop, optNop, optSACK, 10, 0, 0, 0, 9, 0, 0, 0, 10)
		s := w.forward(w.fromClient(0, u.iss+1, u.isn+1, "x", opts...))
		if !bytes.Equal(s.opts, bytes.Repeat([]byte{optNop}, len(opts))) {
			t.Errorf("the server gets options % x", s.opts)
		}
		w.now += 1e9
		s = w.forward(w.fromServer(0, u.srv+1, u.iss+2, "y"))
		if o := parseOptions(s.opts); !o.Stamps || o.Val != told+1000 || o.Ecr != 300 || string(s.data) != "y" {
			t.Errorf("the client gets %+v with %+v", s, o)
		}
		// A segment that just fits without timestamps is cut by the kernel.
		big := bytes.Repeat([]byte{'z'}, 1460)
		v, p := w.handle(w.fromServer(0, u.srv+2, u.iss+2, string(big)))
		if v != Forward || p.Segment != 1448 || !p.Partial {
			t.Errorf("verdict %d, segments of %d bytes, partial %v", v, p.Segment, p.Partial)
		}
		if s = w.forward(tcp{src: w.s, dst: w.hub, flags: flagRST, seq: u.srv + 2}); len(s.opts) != 0 {
			t.Errorf("a reset has options % x", s.opts)
		}
	})
}

// TestCrowdedOptions: timestamps take the place of the last SACK block.
func TestCrowdedOptions(t *testing.T) {
	u := modern()
	u.answers.Stamps = false
	w := spliced(t, u)
	opts := []byte{optNop, optNop, optSACK, 34}
	for i := range uint32(8) {
		opts = binary.BigEndian.AppendUint32(opts, u.iss+100+i)
	}
	s := w.forward(w.fromServer(0, u.srv+1, u.iss+1, "data", opts...))
	if len(s.opts) != 40 || s.opts[15] != 26 || binary.BigEndian.Uint32(s.opts[16:]) != u.iss+100 || string(s.data) != "data" {
		t.Errorf("options % x, data %q", s.opts, s.data)
	}
}

// TestSmallSegments: a server with a smaller MSS gets segments that the kernel
// cuts, the client's large packets stay large ones.
func TestSmallSegments(t *testing.T) {
	u := modern()
	u.answers.MSS = 536
	w := spliced(t, u)
	for _, c := range []struct {
		data, was, want int
		partial         bool
	}{
		{524, 0, 0, false}, {525, 0, 524, true}, {1448, 0, 524, true}, {20000, 1448, 524, true}, {20000, 400, 400, true},
	} {
		p := packetOf(w.fromClient(0, u.iss+1, u.isn+1, string(make([]byte, c.data)), appendStamps(nil, 1, 1)...).packet())
		p.Segment, p.Partial = c.was, c.was > 0
		if v := w.table.Handle(w.now, p); v != Forward || p.Segment != c.want || p.Partial != c.partial {
			t.Errorf("%d bytes in segments of %d: verdict %d, segments of %d, partial %v", c.data, c.was, v, p.Segment, p.Partial)
		}
		if p.Partial {
			b := rewritten(p)
			if got, want := binary.BigEndian.Uint16(b[ip4Len+offSum:]), pseudoSum(b, protoTCP, len(b)-ip4Len); got != want {
				t.Errorf("open checksum %#x, want %#x", got, want)
			}
		}
	}
}

// TestMalformed: absurd options and headers are counted and go nowhere.
func TestMalformed(t *testing.T) {
	u := modern()
	w := spliced(t, u)
	bad := [][]byte{{optStamps, 0, 0, 0}, {optStamps, 1, 0, 0}, {optNop, optNop, optNop, optSACK}, {optSACK, 200, 0, 0}}
	for _, opts := range bad {
		w.swallow(w.fromClient(0, u.iss+1, u.isn+1, "", opts...))
	}
	b := w.fromClient(0, u.iss+1, u.isn+1, "").packet()
	for _, length := range []byte{0x40, 0xf0} {
		b[ip4Len+offLength] = length
		if v := w.table.Handle(w.now, packetOf(b)); v != Took {
			t.Errorf("verdict %d for a header length of %#x", v, length)
		}
	}
	if got := w.table.Counters().Malformed; got != uint64(len(bad))+2 {
		t.Errorf("%d malformed, want %d", got, len(bad)+2)
	}
}
