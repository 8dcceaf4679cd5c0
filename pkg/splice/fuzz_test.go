package splice

import "testing"

// FuzzTranslate gives an open flow whatever looks like a TCP header. Whatever
// goes on has right checksums and lengths, and the same payload.
func FuzzTranslate(f *testing.F) {
	u := modern()
	f.Add(false, true, byte(flagPSH), u.iss+1, u.isn+1, uint16(100), appendStamps(nil, 1, 2), []byte("data"))
	f.Add(true, false, byte(flagFIN), u.srv+1, u.iss+1, uint16(0), []byte{optNop, optNop, optSACK, 10, 1, 2, 3, 4, 5, 6, 7, 8}, []byte{})
	f.Add(false, false, byte(flagRST), uint32(0), uint32(0), uint16(9), []byte{optSACK, 34}, []byte("x"))
	f.Add(true, true, byte(flagSYN), uint32(1<<32-1), uint32(1), uint16(9), []byte{optStamps, 0}, []byte("x"))
	f.Fuzz(func(t *testing.T, six, up bool, flags byte, seq, ack uint32, window uint16, opts, data []byte) {
		u := modern()
		u.six = six
		u.answers.Stamps = window%2 == 0
		u.answers.SACK = window%3 == 0
		w := spliced(t, u)
		s := w.fromServer(flags, seq, ack, "", opts[:min(len(opts), 40)]...)
		if up {
			s = w.fromClient(flags, seq, ack, "", opts[:min(len(opts), 40)]...)
		}
		s.flags, s.window, s.data = flags, window, data[:min(len(data), 1400)]
		v, p := w.handle(s)
		if v != Forward {
			return
		}
		if p.Partial {
			if p.Segment < 1 {
				t.Fatal("an open checksum without need")
			}
			return
		}
		if got := parse(t, rewritten(p)); string(got.data) != string(s.data) || got.flags != s.flags {
			t.Fatalf("%+v became %+v", s, got)
		}
		w.now += openIdle
		w.table.Sweep(w.now)
		if w.table.Flows() != 0 && flags&flagRST != 0 {
			t.Fatal("a reset flow stays")
		}
	})
}

// FuzzPackets gives a table with flows in every state arbitrary bytes as IP
// packets, as TCP and as ICMP.
func FuzzPackets(f *testing.F) {
	u := modern()
	w := spliced(f, u)
	f.Add(w.fromClient(0, u.iss+1, u.isn+1, "data").packet(), 20)
	f.Add(w.fromServer(flagFIN, u.srv+1, u.iss+1, "data").packet(), 20)
	f.Add([]byte{0x60}, 40)
	f.Fuzz(func(t *testing.T, b []byte, start int) {
		asked, _ := ask(t, u)
		offered, _ := ask(t, u)
		offered.answers(u)
		for _, w := range []*world{spliced(t, u), closed(t, u), asked, offered} {
			w.table.Handle(w.now, &Packet{Header: b, Start: start, Size: len(b)})
			w.table.HandleError(w.now, &Packet{Header: b, Start: start, Size: len(b)})
			w.table.Greet(w.now, &Packet{Header: b, Start: start, Size: len(b)}, 1)
			w.table.Ask(w.now, &Packet{Header: b, Start: start, Size: len(b)})
		}
	})
}
