package main

import (
	"bytes"
	"math/rand/v2"
)

// payload is bytes to send, made once and repeated: making them costs nothing
// while something is measured. The agents compress blocks of 16 KB one by one,
// far less than the repetition's length.
type payload []byte

const (
	payloadSize = 4 << 20
	// pieceSize is what one write gives to the kernel.
	pieceSize = 128 << 10
)

// payloads are what flows may carry.
type payloads struct{ noise, text payload }

func newPayloads() payloads {
	noise := make(payload, payloadSize)
	fillNoise(noise)
	return payloads{noise, prose(rand.New(rand.NewPCG(1, 2)))}
}

// fillNoise makes p what nothing can pack, the same in each run.
func fillNoise(p []byte) { _, _ = rand.NewChaCha8([32]byte{1}).Read(p) } // never fails

// prose is made of words of a small language with a natural law of frequency,
// and compresses about as well as text does: to a third.
func prose(rng *rand.Rand) payload {
	words := make([]string, 4000)
	for i := range words {
		w := make([]byte, 2+rng.IntN(8))
		for k := range w {
			w[k] = "etaoinshrdlucmfw"[min(rng.IntN(16), rng.IntN(16))]
		}
		words[i] = string(w)
	}
	frequency := rand.NewZipf(rng, 1.1, 2, uint64(len(words)-1))
	var b bytes.Buffer
	for b.Len() < payloadSize {
		b.WriteString(words[frequency.Uint64()])
		b.WriteByte(" \n"[rng.IntN(12)/11])
	}
	return b.Bytes()[:payloadSize]
}

// piece returns up to pieceSize bytes of the payload's repetition from off on.
func (p payload) piece(off int64) []byte {
	from := int(off % int64(len(p)))
	return p[from:min(from+pieceSize, len(p))]
}
