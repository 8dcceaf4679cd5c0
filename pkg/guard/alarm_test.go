package guard

import (
	"testing"
	"time"
)

// pour counts syns and acks per tick of 10 ms for a while and returns when the
// alarm first said want, and whether it did.
func pour(a *Alarm, now *time.Time, length time.Duration, syns, acks int, want bool) (time.Duration, bool) {
	for passed := time.Duration(0); passed < length; passed += 10 * time.Millisecond {
		*now = now.Add(10 * time.Millisecond)
		a.Count(syns, 0, *now)
		if a.Count(0, acks, *now) == want {
			return passed, true
		}
	}
	return 0, false
}

func TestAlarm(t *testing.T) {
	a, now := NewAlarm(500), time.Unix(1000, 0)
	if at, rose := pour(&a, &now, 10*time.Second, 40, 38, true); rose {
		t.Fatalf("4000 SYNs/s of which 3800 are followed by an ACK are a flood after %v", at)
	}
	if at, rose := pour(&a, &now, time.Second, 1000, 3, true); !rose || at > 10*time.Millisecond {
		t.Fatalf("a flood of 100,000 SYNs/s: seen %v, after %v", rose, at)
	}
	if at, fell := pour(&a, &now, 20*time.Second, 20, 0, false); fell {
		t.Fatalf("a flood of 2000 SYNs/s is over after %v", at)
	}
	if at, fell := pour(&a, &now, 20*time.Second, 1, 1, false); !fell || at < calmFlood {
		t.Fatalf("calm: seen %v, after %v", fell, at)
	}
	if at, rose := pour(&a, &now, 10*time.Second, 20, 0, true); !rose {
		t.Fatalf("2000 SYNs/s without ACKs are no flood; %v", at)
	}
	never := NewAlarm(0)
	if _, rose := pour(&never, &now, time.Second, 1e6, 0, true); rose {
		t.Error("an alarm with the limit 0 has risen")
	}
}

// A flood that comes and goes is one flood.
func TestAlarmPulses(t *testing.T) {
	a, now := NewAlarm(500), time.Unix(1000, 0)
	pour(&a, &now, time.Second, 1000, 0, true)
	for range 5 {
		if at, fell := pour(&a, &now, 4*time.Second, 0, 0, false); fell {
			t.Fatalf("over after a pause of %v", at)
		}
		pour(&a, &now, 100*time.Millisecond, 1000, 0, false)
	}
}

// ACKs without SYNs are no credit for a later flood.
func TestAlarmNoCredit(t *testing.T) {
	a, now := NewAlarm(500), time.Unix(1000, 0)
	pour(&a, &now, 10*time.Second, 0, 1000, true)
	if at, rose := pour(&a, &now, time.Second, 200, 0, true); !rose || at > 50*time.Millisecond {
		t.Fatalf("seen %v, after %v", rose, at)
	}
}
