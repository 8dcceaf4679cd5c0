package card

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/buffer"
	"hawser/pkg/compress"
)

func descriptors(t testing.TB) int {
	t.Helper()
	if r, w, err := os.Pipe(); err == nil { // the runtime's poller opens its own at first use
		r.Close()
		w.Close()
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// noGoroutines fails when the test leaves a goroutine behind.
func noGoroutines(t testing.TB) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for until := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; runtime.Gosched() {
			if time.Now().After(until) {
				t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
			}
		}
	})
}

// running starts a pool; the function that is returned ends it.
func running(t testing.TB, p *Pool, err error) (end func()) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// await parks as a worker does until the channel has a result.
func await(t testing.TB, c Channel, wake <-chan struct{}) *Job {
	for {
		if j := c.TryGet(); j != nil {
			return j
		}
		limit, ok := c.Park(time.Now())
		if !ok {
			continue
		}
		if c.FD() >= 0 {
			wait := -1
			if limit >= 0 {
				wait = int(limit.Milliseconds()) + 1
			}
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(c.FD()), Events: unix.POLLIN}}, wait); err != nil && err != unix.EINTR {
				t.Error(err)
				return nil
			}
			var drop [8]byte // a test has no edges
			_, _ = unix.Read(c.FD(), drop[:])
			continue
		}
		if limit < 0 {
			<-wake
			continue
		}
		select {
		case <-wake:
		case <-time.After(limit):
		}
	}
}

// bell makes a wake function and what it rings.
func bell() (wake func(), rung chan struct{}) {
	rung = make(chan struct{}, 1)
	return func() {
		select {
		case rung <- struct{}{}:
		default:
		}
	}, rung
}

// Several workers with a channel each on fewer threads, with descriptor and
// with wake function: each gets all its jobs back, done, in order.
func TestPool(t *testing.T) {
	for _, k := range []struct {
		workers, threads, queue int
		eventfd, guarded        bool
		cpus                    []int
	}{
		{workers: 1, threads: 1, queue: 1}, {workers: 1, threads: 1, queue: 1, eventfd: true},
		{workers: 3, threads: 2, queue: 7}, {workers: 3, threads: 2, queue: 7, eventfd: true, guarded: true},
		{workers: 2, threads: 1, queue: 64, guarded: true}, {workers: 2, threads: 2, queue: 64, cpus: []int{0}, eventfd: true},
	} {
		t.Run(fmt.Sprintf("%+v", k), func(t *testing.T) {
			leaks(t)
			noGoroutines(t)
			before := descriptors(t)
			p, err := NewPool(PoolOptions{Threads: k.threads, Queue: k.queue, CPUs: k.cpus})
			end := running(t, p, err)
			edge, cloud := rings(t)
			var all sync.WaitGroup
			for i := range k.workers {
				wake, rung := bell()
				if k.eventfd {
					wake = nil
				}
				c, err := p.Open(wake)
				if err != nil {
					t.Fatal(err)
				}
				if k.guarded {
					if c, err = NewGuard(c, GuardOptions{Depth: k.queue, Small: 1000, Deadline: time.Minute}); err != nil {
						t.Fatal(err)
					}
				}
				all.Go(func() { pump(t, c, rung, [2]*Keyring{edge, cloud}, uint32(i)<<20) })
			}
			all.Wait()
			end()
			if now := descriptors(t); now != before {
				t.Errorf("%d descriptors, %d before", now, before)
			}
		})
	}
}

// pump seals many blocks through c, then opens them, and compares.
func pump(t *testing.T, c Channel, rung chan struct{}, ends [2]*Keyring, first uint32) {
	defer c.Close()
	const most = 300
	plain := func(n int) []byte {
		p := text(1 + n*n*37%buffer.Plain)
		if n%3 == 0 {
			p = noise(len(p))
		}
		return binary.BigEndian.AppendUint32(p[:max(0, len(p)-4)], uint32(n))
	}
	var records [][]byte
	move := func(op Op, done func(n int, j *Job)) {
		put, got := 0, 0
		var waiting *Job
		for got < most {
			for put < most {
				if waiting == nil {
					if waiting = sealJob(ends[0], first+uint32(put), plain(put), compress.S2); op == Open {
						waiting.drop()
						waiting = openJob(ends[1], first+uint32(put), records[put])
					}
				}
				if !c.TryPut(waiting) {
					break
				}
				waiting = nil
				put++
			}
			j := await(t, c, rung)
			if j == nil || j.Counter != first+uint32(got) || j.Err != nil || j.Slab != nil || j.In.P != nil {
				t.Errorf("job %d of %d: %+v", got, put, j)
				return
			}
			done(got, j)
			j.Out.Release()
			got++
		}
	}
	move(Seal, func(_ int, j *Job) { records = append(records, bytes.Clone(j.Out.P)) })
	move(Open, func(n int, j *Job) {
		if !bytes.Equal(j.Out.P, plain(n)) {
			t.Errorf("block %d came back with other bytes", n)
		}
	})
	if c.TryGet() != nil {
		t.Error("one job more came back than was put")
	}
}

// A full queue refuses, and leaves the job as it was.
func TestPoolFull(t *testing.T) {
	leaks(t)
	edge, _ := rings(t)
	p, err := NewPool(PoolOptions{Threads: 1, Queue: 3})
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.Open(func() {})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(3) {
		if !c.TryPut(sealJob(edge, i, noise(5000), compress.None)) {
			t.Fatal("refused")
		}
	}
	extra := sealJob(edge, 3, noise(5000), compress.None)
	if c.TryPut(extra) || extra.Slab == nil {
		t.Error("a full queue took a job, or its slab")
	}
	if limit, ok := c.Park(start); limit >= 0 || !ok {
		t.Error("there is a result before the pool runs")
	}
	extra.drop()
	c.Close()
	c.Close()
	end := running(t, p, nil)
	end()
	if _, err := p.Open(nil); err == nil {
		t.Error("a pool that has ended opens a channel")
	}
}

// TestPoolTakesTurns: a channel that is always full does not hold up another one of its
// thread for more than a batch.
func TestPoolTakesTurns(t *testing.T) {
	leaks(t)
	edge, _ := rings(t)
	p, err := NewPool(PoolOptions{Threads: 1, Queue: 4 * batch})
	if err != nil {
		t.Fatal(err)
	}
	open := func() *poolChannel {
		c, err := p.Open(func() {})
		if err != nil {
			t.Fatal(err)
		}
		return c.(*poolChannel)
	}
	hot, other := open(), open()
	put := func(c *poolChannel, n int) {
		for range n {
			if !c.TryPut(sealJob(edge, 0, noise(100), compress.None)) {
				t.Fatal("refused")
			}
		}
	}
	got := func(c *poolChannel) (n int) {
		for j := c.TryGet(); j != nil; j = c.TryGet() {
			j.drop()
			n++
		}
		return n
	}
	put(hot, 4*batch)
	for turn := range 5 {
		put(other, 1)
		p.threads[0].serve() // what its loop does
		if n := got(hot); n != batch {
			t.Errorf("turn %d: %d jobs of the full channel, want %d", turn, n, batch)
		}
		if n := got(other); n != 1 {
			t.Errorf("turn %d: %d jobs of the other one, want 1", turn, n)
		}
		put(hot, batch)
	}
	hot.Close()
	other.Close()
	running(t, p, nil)()
}

// Channels may be closed with jobs inside, before, while and after the pool
// runs.
func TestPoolClose(t *testing.T) {
	leaks(t)
	noGoroutines(t)
	before := descriptors(t)
	edge, _ := rings(t)
	p, err := NewPool(PoolOptions{Threads: 2, Queue: 16})
	if err != nil {
		t.Fatal(err)
	}
	var channels []Channel
	for i := range uint32(30) {
		c, err := p.Open(nil)
		if err != nil {
			t.Fatal(err)
		}
		for n := range i % 17 {
			c.TryPut(sealJob(edge, i<<8+n, noise(3000), compress.S2))
		}
		channels = append(channels, c)
	}
	for _, c := range channels[:10] {
		c.Close()
	}
	end := running(t, p, nil)
	for _, c := range channels[10:20] {
		if j := sealJob(edge, 0, noise(3000), compress.S2); !c.TryPut(j) {
			j.drop()
		}
		c.Close()
	}
	end()
	for _, c := range channels[20:] {
		c.Close()
	}
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
}

func TestPoolOptions(t *testing.T) {
	for _, o := range []PoolOptions{{Threads: 0, Queue: 1}, {Threads: MaxThreads + 1, Queue: 1}, {Threads: 1}, {Threads: 1, Queue: MaxQueue + 1}} {
		if _, err := NewPool(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
	p, err := NewPool(PoolOptions{Threads: 1, Queue: 1, CPUs: []int{1000}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(context.Background()); err == nil {
		t.Error("a thread was bound to a CPU that does not exist")
	}
}

// A thread is bound where it is told.
func TestPoolCPU(t *testing.T) {
	noGoroutines(t)
	p, err := newPool(PoolOptions{Threads: 1, Queue: 1, CPUs: []int{0}}, func() (crypter, error) { return &affinity{}, nil })
	end := running(t, p, err)
	edge, _ := rings(t)
	wake, rung := bell()
	c, err := p.Open(wake)
	if err != nil {
		t.Fatal(err)
	}
	c.TryPut(sealJob(edge, 1, noise(3000), compress.None))
	j := await(t, c, rung)
	j.Out.Release()
	c.Close()
	end()
	if set := p.threads[0].engine.crypt.(*affinity).set; set.Count() != 1 || !set.IsSet(0) {
		t.Errorf("the thread may run on %d CPUs", set.Count())
	}
}

// affinity notes where it runs.
type affinity struct {
	software
	set unix.CPUSet
}

func (a *affinity) seal(key *recordKey, nonce *[nonceLen]byte, dst, plain []byte) error {
	_ = unix.SchedGetaffinity(0, &a.set)
	return a.software.seal(key, nonce, dst, plain)
}

func TestPoolNoAllocation(t *testing.T) {
	p, err := NewPool(PoolOptions{Threads: 1, Queue: 8})
	end := running(t, p, err)
	defer end()
	inner, err := p.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewGuard(inner, GuardOptions{Depth: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	edge, _ := rings(t)
	plain := noise(buffer.Plain)
	var j Job
	round := func() {
		b := buffer.Get(buffer.Large)
		copy(b.Bytes()[HeaderLen:], plain)
		j = Job{Op: Seal, Codec: compress.S2, Ring: edge, Flow: 7, Counter: j.Counter + 1, Now: start, Slab: b, N: len(plain)}
		c.TryPut(&j)
		for c.TryGet() == nil {
			runtime.Gosched()
		}
		if j.Err != nil {
			t.Fatal(j.Err)
		}
		j.Out.Release()
	}
	round()
	if n := testing.AllocsPerRun(300, round); n != 0 && !raceEnabled {
		t.Errorf("%v allocations per record", n)
	}
}
