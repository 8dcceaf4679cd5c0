package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"hawser/e2e/emu"
)

// Kinds of fault.
const (
	blackhole  = iota // an uplink passes nothing, both ways
	halfBlind         // one way only
	everything        // all uplinks pass nothing for up to two seconds
	lossy             // an uplink loses packets
	slower            // an uplink's rate falls
	resets            // the cloud resets an uplink's connections
	faultKinds
)

// breakUplinks breaks one thing after the other, and mends it again.
func (s *soak) breakUplinks(r *rand.Rand) {
	for {
		pause(s.ctx, time.Duration(500+r.IntN(4000))*ms)
		if s.ctx.Err() != nil {
			return
		}
		kind := r.IntN(faultKinds)
		if err := s.fault(kind, r); err != nil {
			s.failed.Add(1)
			s.complain(fmt.Sprintf("%6.1f s: fault %d: %v", time.Since(s.began).Seconds(), kind, err))
			continue
		}
		s.faults[kind].Add(1)
	}
}

func (s *soak) fault(kind int, r *rand.Rand) error {
	all := lines()
	i := r.IntN(len(all))
	u, lasts := all[i], time.Duration(200+r.IntN(4000))*ms
	switch kind {
	case blackhole:
		return s.during(lasts, s.holes(emu.Both, u.Name))
	case halfBlind:
		return s.during(lasts, s.holes([]emu.Direction{emu.Up, emu.Down}[r.IntN(2)], u.Name))
	case everything:
		return s.during(min(lasts, 2*time.Second), s.holes(emu.Both, all[0].Name, all[1].Name, all[2].Name))
	case lossy:
		return s.during(lasts, s.changed(u.Name, emu.SetLoss(0.2*r.Float64()), emu.SetLoss(0)))
	case slower:
		return s.during(lasts, s.changed(u.Name, emu.SetRate(u.Rate/int64(2+r.IntN(10))), emu.SetRate(u.Rate)))
	}
	rule := []string{"INPUT", "-i", fmt.Sprintf("dn%d", i+1), "-p", "tcp", "--dport", "7443", "-j", "REJECT", "--reject-with", "tcp-reset"}
	return s.during(min(lasts, time.Second), func(on bool) error {
		verb := map[bool]string{true: "-I", false: "-D"}[on]
		_, err := s.lab.Exec("cloud", append([]string{"iptables", "-w", verb}, rule...)...)
		return err
	})
}

// during sets something, waits, and sets it back; also when the run ends.
func (s *soak) during(d time.Duration, set func(on bool) error) error {
	if err := set(true); err != nil {
		return err
	}
	pause(s.ctx, d)
	return set(false)
}

func (s *soak) holes(dir emu.Direction, uplinks ...string) func(bool) error {
	return func(on bool) error {
		for _, u := range uplinks {
			if err := s.lab.Blackhole(u, dir, on); err != nil {
				return err
			}
		}
		return nil
	}
}

func (s *soak) changed(uplink string, to, back emu.Change) func(bool) error {
	return func(on bool) error {
		if on {
			return s.lab.Set(uplink, emu.Both, to)
		}
		return s.lab.Set(uplink, emu.Both, back)
	}
}
