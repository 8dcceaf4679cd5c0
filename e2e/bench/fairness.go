package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// Users of table fairness, and times.
const (
	fairUsers   = 20 // with 1 to 50 connections each
	fairBulk    = 50 // users beside the privileged one
	fairStuck   = 20 // connections whose clients read nothing
	fairAsks    = 200
	fairAnswer  = 1200 // bytes
	fairWarm    = 3 * time.Second
	fairTime    = 12 * time.Second
	fairWeigh   = 16 * time.Second
	fairFill    = 8 * time.Second // until connections that nobody reads from have filled what they may
	fairPart    = 8 * time.Second
	fairBetween = 30 * ms // requests of the privileged user
	firstUser   = 100     // last byte of the first user's address
	vipUser     = 90
	heavyUser   = 70 // of the first one with a weight
)

var fairWeights = []int{1, 1, 2, 4, 8, 3}

// fairResult is what was measured.
type fairResult struct {
	Equal   []float64    `json:"equal_mbps"` // by user
	Weights []float64    `json:"weights_mbps"`
	VIP     [3][]float64 `json:"privileged_ms"` // beside nobody, one user, and many
	Stuck   [2]float64   `json:"stuck_mbps"`    // of the others: without stuck ones (before and after), and with them
}

// fairness measures how users share the pair's uplinks (issue 4, gate 7).
func (b *bench) fairness() (r *report, err error) {
	w, err := openUsers(unlikeLines())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	var all fairResult
	for _, part := range []func(*world, *fairResult) error{b.equalUsers, b.weightedUsers, b.privilegedUser, b.stuckUsers} {
		if err := part(w, &all); err != nil {
			return nil, err
		}
	}
	return all.report(), nil
}

// openUsers is open for many client addresses, of which some have policies.
func openUsers(l lines) (w *world, err error) {
	spec := lab.Spec{Name: "fair", Uplinks: l.uplinks, Seed: 1}
	made, err := lab.New(spec)
	if err != nil {
		return nil, err
	}
	w = &world{Lab: made, port: tunnelPort, clientNodes: 1}
	policies := []string{fmt.Sprintf("{name: vip, client: %s, class: privileged}", w.userAddr(vipUser))}
	for i, weight := range fairWeights {
		policies = append(policies, fmt.Sprintf("{name: weight%d, client: %s, weight: %d}", i, w.userAddr(heavyUser+i), weight))
	}
	o := pair.Options{Transport: "tcp", Policies: "[" + strings.Join(policies, ", ") + "]"}
	if w.pair, err = pair.New(made, spec, o); err == nil {
		err = w.start()
	}
	for _, user := range append(span(firstUser, fairBulk+fairUsers), append(span(heavyUser, len(fairWeights)), vipUser)...) {
		if err == nil {
			_, err = w.Exec("client", "ip", "addr", "add", w.userAddr(user).String()+"/32", "dev", "eth0")
		}
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func span(from, n int) (out []int) {
	for i := range n {
		out = append(out, from+i)
	}
	return out
}

// userAddr is a client address by its last byte.
func (w *world) userAddr(last int) netip.Addr {
	a := w.Address("client", lab.IPv4).As4()
	a[3] = byte(last)
	return netip.AddrFrom4(a)
}

// dialAs connects from a user's address.
func (w *world) dialAs(user int) (*net.TCPConn, error) {
	var conn net.Conn
	err := w.Do("client", func() (err error) {
		d := net.Dialer{Timeout: dialLimit, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.userAddr(user), 0))}
		conn, err = d.Dial("tcp", w.address(way{}))
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// crowding is users with downloads that do not end.
type crowding struct {
	world *world
	conns []*net.TCPConn
	got   []*atomic.Int64 // by user
	wg    sync.WaitGroup
}

// add lets a user begin n downloads. stuck: it reads nothing, and is not counted.
func (c *crowding) add(user, n int, stuck bool) error {
	count := new(atomic.Int64)
	if !stuck {
		c.got = append(c.got, count)
	}
	for range n {
		conn, err := c.world.dialAs(user)
		if err != nil {
			return fmt.Errorf("user %d: %w", user, err)
		}
		c.conns = append(c.conns, conn)
		if _, err := conn.Write(request{kind: download}.encode()); err != nil {
			return fmt.Errorf("user %d: %w", user, err)
		}
		if !stuck {
			c.wg.Go(func() { drain(conn, count) })
		}
	}
	return nil
}

func (c *crowding) stop() error {
	for _, conn := range c.conns {
		_ = conn.SetLinger(0)
		conn.Close()
	}
	c.wg.Wait()
	return c.world.carrier.idle(dialLimit)
}

// rates is what each user gets, in Mbit/s.
func (c *crowding) rates(b *bench, warm, d time.Duration) (out []float64, err error) {
	if err := b.sleep(warm); err != nil {
		return nil, err
	}
	base, began := make([]int64, len(c.got)), time.Now()
	for i, n := range c.got {
		base[i] = n.Load()
	}
	if err := b.sleep(d); err != nil {
		return nil, err
	}
	took := time.Since(began).Seconds()
	for i, n := range c.got {
		out = append(out, float64(n.Load()-base[i])*8/1e6/took)
	}
	return out, nil
}

func (b *bench) equalUsers(w *world, all *fairResult) (err error) {
	c := &crowding{world: w}
	defer func() { err = errors.Join(err, c.stop()) }()
	for i := range fairUsers {
		if err := c.add(firstUser+i, 1+i*49/(fairUsers-1), false); err != nil {
			return err
		}
	}
	all.Equal, err = c.rates(b, fairWarm, fairTime)
	return err
}

func (b *bench) weightedUsers(w *world, all *fairResult) (err error) {
	c := &crowding{world: w}
	defer func() { err = errors.Join(err, c.stop()) }()
	for i := range fairWeights {
		if err := c.add(heavyUser+i, 1+(7*i)%10, false); err != nil {
			return err
		}
	}
	all.Weights, err = c.rates(b, fairWarm, fairWeigh)
	return err
}

// privilegedUser times small exchanges of a privileged user beside nobody, one
// user, which keeps the uplinks' short queues filled, and many.
func (b *bench) privilegedUser(w *world, all *fairResult) (err error) {
	c := &crowding{world: w}
	defer func() { err = errors.Join(err, c.stop()) }()
	for i, users := range []int{0, 1, fairBulk} {
		for user := len(c.got); user < users; user++ {
			if err := c.add(firstUser+user, 1, false); err != nil {
				return err
			}
		}
		if err := b.sleep(fairWarm); err != nil {
			return err
		}
		if all.VIP[i], err = b.askAs(w, vipUser, fairAsks); err != nil {
			return err
		}
	}
	return nil
}

// askAs fetches n small objects over a new connection each, ms.
func (b *bench) askAs(w *world, user, n int) (took []float64, err error) {
	dial := func(string) (*net.TCPConn, error) { return w.dialAs(user) }
	for range n {
		d, err := fetchOne(dial, "", "", fairAnswer)
		if err != nil {
			return nil, err
		}
		took = append(took, millis(d))
		if err := b.sleep(fairBetween); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// stuckUsers measures five users alone, beside connections that nobody reads
// from, of which half are of one of the five, and alone again.
func (b *bench) stuckUsers(w *world, all *fairResult) (err error) {
	c := &crowding{world: w}
	defer func() { err = errors.Join(err, c.stop()) }()
	for i := range 5 {
		if err := c.add(firstUser+i, 2, false); err != nil {
			return err
		}
	}
	measure := func(warm time.Duration) (sum float64, err error) {
		rates, err := c.rates(b, warm, fairPart)
		for _, rate := range rates {
			sum += rate
		}
		return sum, err
	}
	before, err := measure(fairWarm)
	if err != nil {
		return err
	}
	moving := len(c.conns)
	if err := errors.Join(c.add(firstUser, fairStuck/2, true), c.add(firstUser+6, fairStuck/2, true)); err != nil {
		return err
	}
	if all.Stuck[1], err = measure(fairFill); err != nil {
		return err
	}
	for _, conn := range c.conns[moving:] {
		_ = conn.SetLinger(0)
		conn.Close()
	}
	after, err := measure(fairWarm)
	all.Stuck[0] = (before + after) / 2
	return err
}

// jain is the fairness index of Jain, Chiu and Hawe (1984).
func jain(x []float64) float64 {
	sum, squares := 0.0, 0.0
	for _, v := range x {
		sum += v
		squares += v * v
	}
	return sum * sum / (float64(len(x)) * squares)
}

// weightErrors is by how much each user's part is off its weight, as a share.
func weightErrors(rates []float64, weights []int) (off []float64) {
	sum, all := 0.0, 0
	for i, v := range rates {
		sum += v
		all += weights[i]
	}
	for i, v := range rates {
		off = append(off, v/sum*float64(all)/float64(weights[i])-1)
	}
	return off
}

func (f *fairResult) report() *report {
	r := &report{
		Title: "fairness: " + unlikeLines().name + ", hawser, TCP links, downloads",
		Head:  []string{"who", "what", "figure"},
		Raw:   f,
	}
	off := weightErrors(f.Weights, fairWeights)
	worst := max(slices.Max(off), -slices.Min(off))
	p99 := func(i int) float64 { return quantile(f.VIP[i], 0.99) }
	r.add(fmt.Sprintf("%d equal users, 1 to 50 connections each", fairUsers), "Jain's index", fmt.Sprintf("%.4f", jain(f.Equal)))
	r.add("", "Mbit/s, least and most", fmt.Sprintf("%.2f, %.2f", slices.Min(f.Equal), slices.Max(f.Equal)))
	r.add(fmt.Sprintf("users of weights %v", fairWeights), "off their parts, %", fmt.Sprintf("%+.1f", each(off, func(x float64) float64 { return 100 * x })))
	for i, beside := range []string{"nobody", "one user's download", fmt.Sprintf("%d users' downloads", fairBulk)} {
		r.add("a privileged user beside "+beside, "1.2 KB on a new connection, p50 / p99 ms", fmt.Sprintf("%.1f / %.1f", quantile(f.VIP[i], 0.5), p99(i)))
	}
	r.add(fmt.Sprintf("5 users beside %d connections that nobody reads from", fairStuck), "of what they get alone", fmt.Sprintf("%.3f", f.Stuck[1]/f.Stuck[0]))
	r.Gates = append(r.Gates,
		gate{What: "Jain's index", Got: jain(f.Equal), Want: 0.97},
		gate{What: "weights, worst error", Got: 100 * worst, Want: 5, Most: true, Unit: " %"},
		gate{What: fmt.Sprintf("privileged p99 beside %d users, to that beside one", fairBulk), Got: p99(2) / p99(1), Want: 1.2, Most: true},
		gate{What: "goodput beside stuck connections", Got: f.Stuck[1] / f.Stuck[0], Want: 0.98})
	return r
}
