package split

import (
	"testing"
	"time"

	"hawser/pkg/guard"
)

// TestAnsweringAllocatesNothing: a SYN costs no memory, whatever is made of it.
func TestAnsweringAllocatesNothing(t *testing.T) {
	st := &Stack{opts: Options{}.withDefaults(), link: &link{hub: "\x02\x00\x00\x00\x03\x02", host: "\x02\x00\x00\x00\x03\x01"}}
	l := &synLoop{k: newKeeper(st, GuardOptions{Gate: NewGate(guard.Auto, guard.Limits{})}), recent: guard.NewRecent()}
	back := &link{hub: st.link.host, host: st.link.hub} // the way that clients' frames come
	e := guard.Ends{ServerPort: 80}
	put(&e.Client, []byte{198, 18, 1, 2})
	put(&e.Server, []byte{198, 18, 200, 7})
	for name, c := range map[string]struct {
		syn   guard.Segment
		spoil int // the byte that is wrong; 0: none
	}{
		"all options": {syn: guard.Segment{Flags: guard.FlagSYN, MSS: 1460, Scale: 7, SACK: true, Stamps: true}},
		"no options":  {syn: guard.Segment{Flags: guard.FlagSYN, Scale: guard.NoScale}},
		"absurd":      {syn: guard.Segment{Flags: guard.FlagSYN, MSS: 9, Scale: guard.NoScale}},
		"checksum":    {syn: guard.Segment{Flags: guard.FlagSYN, MSS: 1460, Scale: guard.NoScale}, spoil: 36},
	} {
		n := uint32(0)
		allocs := testing.AllocsPerRun(20, func() {
			l.tx.count, l.got = 0, synBatch
			b := synTurn{now: time.Now(), jar: l.k.turn(time.Now()), clock: l.k.clock(), auto: guard.Fast, first: 1000}
			for i := range synBatch {
				n++
				e.ClientPort, c.syn.Seq = uint16(n), n
				f := c.syn.Append(appendEther(l.frame[i][:0], back, false), &e, false, guard.ToServer)
				if c.spoil > 0 {
					f[etherLen+c.spoil] ^= 1
				}
				l.msgs[i].len = uint32(vnetLen + len(f))
				l.one(&b, i)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations for %d SYNs", name, allocs, synBatch)
		}
		if want := map[bool]int{true: synBatch}[name == "all options" || name == "no options"]; l.tx.count != want {
			t.Errorf("%s: %d of %d SYNs are answered", name, l.tx.count, synBatch)
		}
	}
}
