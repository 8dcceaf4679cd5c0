// Package slim keeps containers as small as what is in them, and moments small.
// Go's maps and slices keep the memory of the most that they ever held; an agent
// that has seen a rush of flows would keep it for good.
//
// The package starts no goroutines.
package slim

import "maps"

// least is the number of entries below which nothing is worth a copy.
const least = 1 << 10

// few is how many elements of a slice at rest are no waste.
const few = 64

// Peak is the most entries that a map has had since it was last rebuilt.
type Peak int

// Map returns m, or a copy of its own size once m holds less than an eighth of
// what it did. It is called after each delete; its cost per delete is less
// than that of another insert.
func Map[K comparable, V any](m map[K]V, peak *Peak) map[K]V {
	*peak = max(*peak, Peak(len(m)+1))
	if *peak < least || len(m) >= int(*peak)/8 {
		return m
	}
	*peak = Peak(len(m))
	small := make(map[K]V, len(m)) // maps.Clone would be as large as m
	maps.Copy(small, m)
	return small
}

// Emptied returns s without its elements, which it does not keep alive, and
// without its memory where most of a large s was not used this time.
func Emptied[T any](s []T) []T {
	if cap(s) > 4*least && len(s) < cap(s)/4 {
		return nil
	}
	clear(s)
	return s[:0]
}

// Rested is Emptied for a time when nothing is going to be put into s for a while: only
// a little memory is kept.
func Rested[T any](s []T) []T {
	if cap(s) > few {
		return nil
	}
	return Emptied(s)
}
