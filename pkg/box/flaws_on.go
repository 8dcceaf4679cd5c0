//go:build cardfaults

package box

import (
	"math/rand/v2"
	"time"

	"hawser/pkg/card"
)

// flawed gives c the faults of a poor accelerator: the agents that `make soak`
// builds have such cards. A Guard gives a card up for longer each time that it
// fails, so faults are rare enough for it to be used most of the time.
func flawed(c card.Channel) card.Channel {
	return card.NewFaulty(c, card.FaultOptions{Seed: rand.Uint64(), Every: 500, Late: 2 * time.Second, Stall: 2 * time.Second})
}
