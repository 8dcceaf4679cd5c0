package main

import (
	"fmt"
	"slices"
	"time"
)

// quantile returns the q-quantile (0 to 1) by the nearest rank, 0 of nothing.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}

// median returns the middle value, the mean of the two middle ones of an even
// number.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// spread shows the median with the least and the largest value.
func spread(format string, values []float64) string {
	if len(values) < 2 {
		return fmt.Sprintf(format, median(values))
	}
	return fmt.Sprintf(format+" ("+format+"-"+format+")", median(values), slices.Min(values), slices.Max(values))
}

// each returns f of all items.
func each[T any](items []T, f func(T) float64) []float64 {
	out := make([]float64, 0, len(items))
	for _, it := range items {
		out = append(out, f(it))
	}
	return out
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
