package slim

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		time.Sleep(time.Minute)
		c, first := NewClock(began), time.Now()
		time.Sleep(90*time.Second + time.Nanosecond)
		second := time.Now()
		a, b := c.At(first), c.At(second)
		if a >= b || c.Since(a, second) != second.Sub(first) || c.Since(b, first) != first.Sub(second) {
			t.Errorf("%d and %d, %v between them", a, b, c.Since(a, second))
		}
		if c.At(began) == 0 || c.At(began.Add(-time.Hour)) >= 0 {
			t.Errorf("the beginning is %d, an hour before %d", c.At(began), c.At(began.Add(-time.Hour)))
		}
	})
}
