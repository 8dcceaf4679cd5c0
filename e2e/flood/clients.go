package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hawser/e2e/lab"
)

// clients is how many clients connect in a loop, one connection each.
const clients = 4

// result is how the clients fared.
type result struct {
	took   []time.Duration // of connections that came to be
	failed int
	length time.Duration
}

// String shows rate, success, median and 99th percentile.
func (r result) String() string {
	ok := 100.0
	if n := len(r.took) + r.failed; n > 0 {
		ok = 100 * float64(len(r.took)) / float64(n)
	}
	return fmt.Sprintf("%7.0f %5.1f%% %s %s", r.perSecond(), ok, millis(r.at(50)), millis(r.at(99)))
}

func (r result) perSecond() float64 { return float64(len(r.took)) / r.length.Seconds() }

func millis(d time.Duration) string { return fmt.Sprintf("%6.2fms", float64(d.Microseconds())/1000) }

// at is a percentile.
func (r result) at(percent int) time.Duration {
	if len(r.took) == 0 {
		return 0
	}
	slices.Sort(r.took)
	return r.took[min(len(r.took)*percent/100, len(r.took)-1)]
}

// phase lets clients connect to addr for a while. A connection counts when it
// stands; it is reset then, so that it leaves nothing behind.
func phase(l *lab.Lab, addr netip.AddrPort, length time.Duration) (result, error) {
	var mu sync.Mutex
	var broken error // the lab, not a connection
	r := result{length: length}
	end := time.Now().Add(length)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			err := l.Do("client1", func() error {
				for time.Now().Before(end) {
					began := time.Now()
					c, err := net.DialTimeout("tcp", addr.String(), 10*time.Second)
					took := time.Since(began)
					mu.Lock()
					if err != nil {
						r.failed++
					} else {
						r.took = append(r.took, took)
					}
					mu.Unlock()
					if err == nil {
						_ = c.(*net.TCPConn).SetLinger(0)
						c.Close()
					}
				}
				return nil
			})
			mu.Lock()
			broken = errors.Join(broken, err)
			mu.Unlock()
		})
	}
	wg.Wait()
	return r, broken
}
