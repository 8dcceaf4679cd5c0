package card

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"hawser/pkg/compress"
	"hawser/pkg/simlink"
	"hawser/pkg/stream"
)

func TestKeyringErrors(t *testing.T) {
	for _, n := range []int{0, 31, 33} {
		if _, err := NewKeyring(make([]byte, n), Edge); err == nil {
			t.Errorf("a secret of %d bytes was taken", n)
		}
	}
	if _, err := NewKeyring(secret, 0); err == nil {
		t.Error("role 0 was taken")
	}
}

// at seals a record at a moment and returns it.
func at(t testing.TB, c Channel, k *Keyring, counter uint32, now time.Time, plain []byte) []byte {
	t.Helper()
	j := sealJob(k, counter, plain, compress.None)
	j.Now = now
	if run(t, c, j); j.Err != nil {
		t.Fatal(j.Err)
	}
	defer j.Out.Release()
	return append([]byte(nil), j.Out.P...)
}

func opens(t testing.TB, c Channel, k *Keyring, counter uint32, record []byte) error {
	t.Helper()
	j := run(t, c, openJob(k, counter, record))
	j.Out.Release()
	return j.Err
}

func TestRenewal(t *testing.T) {
	c := inline(t)
	for _, k := range []struct {
		name  string
		set   func(*limits)
		step  time.Duration
		every int // records per epoch
	}{
		{"records", func(l *limits) { l.records = 5 }, time.Second, 5},
		{"bytes", func(l *limits) { l.bytes = 300 }, time.Second, 3},
		{"time", func(*limits) {}, 15 * time.Minute, 4},
		{"not at all", func(*limits) {}, time.Second, 1 << 20},
	} {
		edge, cloud := rings(t)
		k.set(&edge.seal.limits)
		for i := range 60 {
			record := at(t, c, edge, uint32(i), start.Add(time.Duration(i)*k.step), noise(100))
			if want := uint8(i / k.every); record[3] != want {
				t.Fatalf("%s: record %d is of epoch %d, want %d", k.name, i, record[3], want)
			}
			if err := opens(t, c, cloud, uint32(i), record); err != nil {
				t.Fatalf("%s: record %d: %v", k.name, i, err)
			}
		}
		if s, o := edge.Epochs(); s != uint64(59/k.every) || o != 0 {
			t.Errorf("%s: edge seals in %d, opens in %d", k.name, s, o)
		}
		if _, o := cloud.Epochs(); o != uint64(59/k.every) {
			t.Errorf("%s: cloud opens in %d", k.name, o)
		}
	}
	edge, _ := rings(t)
	if edge.seal.limits != (limits{1 << 28, 1 << 36, time.Hour}) {
		t.Errorf("limits are %+v", edge.seal.limits)
	}
}

// The number goes beyond 8 bits, and silence costs one epoch however long.
func TestEpochWraps(t *testing.T) {
	c := inline(t)
	edge, cloud := rings(t)
	for i := range uint32(600) {
		record := at(t, c, edge, i, start.Add(time.Duration(i)*100*time.Hour), noise(10))
		if err := opens(t, c, cloud, i, record); err != nil {
			t.Fatalf("epoch %d: %v", i, err)
		}
	}
	if s, _ := edge.Epochs(); s != 599 {
		t.Errorf("sealing in epoch %d", s)
	}
}

func TestReach(t *testing.T) {
	c := inline(t)
	edge, cloud := rings(t)
	edge.seal.limits.records = 1 // an epoch per record
	var records [40][]byte
	for i := range records {
		records[i] = at(t, c, edge, uint32(i), start, noise(50))
	}
	check := func(i int, ok bool) {
		t.Helper()
		err := opens(t, c, cloud, uint32(i), records[i])
		if ok != (err == nil) || (!ok && !errors.Is(err, ErrEpoch)) {
			t.Errorf("epoch %d: %v, want success %v", i, err, ok)
		}
	}
	check(9, false) // 9 ahead
	check(8, true)  // 8 ahead, all keys between derived
	check(3, true)  // passed over, still kept
	check(0, true)  // 8 behind
	check(17, false)
	check(10, true)
	check(2, true)
	check(1, false) // 9 behind by now
	check(18, true)
	check(26, true)
	check(17, false)
	forged := append([]byte(nil), records[30]...)
	forged[20] ^= 1
	for range 3 {
		if err := opens(t, c, cloud, 30, forged); !errors.Is(err, ErrForged) {
			t.Errorf("forged record of an epoch ahead: %v", err)
		}
	}
	check(18, true) // a forged record did not move the newest epoch
	check(34, true)
	fresh, err := NewKeyring(secret, Cloud)
	if err != nil {
		t.Fatal(err)
	}
	below := append([]byte(nil), records[0]...)
	below[3] = 255 // epoch -1
	if err := opens(t, c, fresh, 0, below); !errors.Is(err, ErrEpoch) {
		t.Errorf("epoch before the first: %v", err)
	}
}

// TestFollow: who keeps old keys is led from record to record, over more than they reach,
// and to none that has never been.
func TestFollow(t *testing.T) {
	c := inline(t)
	edge, cloud := rings(t)
	edge.seal.limits.records = 1 // an epoch per record
	first := cloud.Keys()
	var records [41][]byte
	for i := range records {
		records[i] = at(t, c, edge, uint32(i), start, noise(50))
		if i < 40 {
			if err := opens(t, c, cloud, uint32(i), records[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	k := first
	for i, r := range records {
		if newest := cloud.Keys(); newest.Open(r) != (i >= 31) {
			t.Errorf("the newest of epoch 39 opens epoch %d: %v", i, newest.Open(r))
		}
		if k = k.Follow(r); k == nil || !k.Open(r) {
			t.Fatalf("nothing leads to epoch %d", i)
		}
	}
	if k == cloud.Keys() {
		t.Error("all keys are passed over for the newest")
	}
	for what, r := range map[string][]byte{"of epoch 48": {0, 100, 0, 48}, "with unknown flags": {0, 100, 99, 3}, "without a header": {0, 100}} {
		if first.Follow(r) != nil {
			t.Errorf("a record %s is found", what)
		}
	}
}

// Workers renew and follow at the same time; every record opens.
func TestSharedRing(t *testing.T) {
	edge, cloud := rings(t)
	edge.seal.limits.records = 300 // 7 epochs in all: within reach, however the goroutines run
	const workers, each = 4, 500
	records := make(chan [2]any, workers*8)
	var sealing, opening sync.WaitGroup
	fails := make(chan error, workers)
	for w := range workers {
		sealing.Add(1)
		go func() {
			defer sealing.Done()
			c := inline(t)
			for i := range each {
				counter := uint32(w*each + i)
				records <- [2]any{counter, sealed(t, c, edge, counter, []byte(fmt.Sprint(counter)), compress.None)}
			}
		}()
		opening.Add(1)
		go func() {
			defer opening.Done()
			c := inline(t)
			for r := range records {
				if err := opens(t, c, cloud, r[0].(uint32), r[1].([]byte)); err != nil {
					select {
					case fails <- err:
					default:
					}
				}
			}
		}()
	}
	sealing.Wait()
	close(records)
	opening.Wait()
	close(fails)
	for err := range fails {
		t.Error(err)
	}
	if s, o := edge.Epochs(); s != (workers*each-1)/300 || o != 0 {
		t.Errorf("sealed up to epoch %d", s)
	}
}

type tunnel struct{ stream.Tunnel }

func (*tunnel) Secret() []byte { return secret }

type badTunnel struct{ stream.Tunnel }

func (*badTunnel) Secret() []byte { return nil }

func TestRings(t *testing.T) {
	r := NewRings(Cloud)
	a, b := &tunnel{}, &tunnel{}
	first, err := r.Get(a)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := r.Get(a); again != first {
		t.Error("the ring of a session was made twice")
	}
	if other, _ := r.Get(b); other == first {
		t.Error("two sessions share a ring")
	}
	r.Forget(a)
	if again, _ := r.Get(a); again == first {
		t.Error("a forgotten ring came back")
	}
	if _, err := r.Get(&badTunnel{}); err == nil {
		t.Error("a session without a secret got a ring")
	}
}

type endedTunnel struct {
	tunnel
	ended chan struct{}
}

func (e *endedTunnel) Ended() <-chan struct{} { return e.ended }

// TestRingsOfEndedSessions: a session that has ended and was forgotten is not kept by what
// comes late.
func TestRingsOfEndedSessions(t *testing.T) {
	r := NewRings(Cloud)
	s := &endedTunnel{ended: make(chan struct{})}
	first, err := r.Get(s)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := r.Get(s); again != first {
		t.Error("the ring of a session was made twice")
	}
	close(s.ended)
	r.Forget(s)
	if late, err := r.Get(s); late == nil || err != nil {
		t.Errorf("%v, %v", late, err)
	}
	if n := len(r.rings); n != 0 {
		t.Errorf("%d rings are kept", n)
	}
}

// TestRenewalAndClocks: a key is renewed in time although the clock is set back.
func TestRenewalAndClocks(t *testing.T) {
	edge, _ := rings(t)
	began := time.Now()
	for _, c := range []struct {
		now  time.Time
		want uint64
	}{
		{began, 0},
		{simlink.Stepped(began.Add(maxAge-time.Second), -86400), 0},
		{simlink.Stepped(began.Add(maxAge), -86400), 1},
		{simlink.Stepped(began.Add(maxAge+time.Second), 86400), 1},
	} {
		if e, err := edge.seal.take(1, c.now); err != nil || e.number != c.want {
			t.Errorf("%v after the first record, by a clock that says %v: key %d, %v; want %d", c.now.Sub(began), c.now, e.number, err, c.want)
		}
	}
}

func BenchmarkRenew(b *testing.B) {
	edge, _ := rings(b)
	edge.seal.limits.records = 1
	for b.Loop() {
		if _, err := edge.seal.take(1, start); err != nil {
			b.Fatal(err)
		}
	}
}
