package main

import (
	"fmt"
	"strings"
	"time"

	"hawser/e2e/lab"
)

// uplinks are the two lines of the lab. Rates hold for each direction; the
// round-trip time is twice the delay.
func uplinks() []lab.Uplink {
	return []lab.Uplink{
		{Name: "wifi", Rate: 50e6, Delay: 10 * time.Millisecond},
		{Name: "lte", Rate: 30e6, Delay: 25 * time.Millisecond},
	}
}

func names() (list []string) {
	for _, u := range uplinks() {
		list = append(list, u.Name)
	}
	return list
}

// rateOf returns an uplink's rate in bit/s, 0 if there is none of that name.
func rateOf(name string) int64 {
	for _, u := range uplinks() {
		if u.Name == name {
			return u.Rate
		}
	}
	return 0
}

// best is the uplink with the highest rate.
func best() (found lab.Uplink) {
	for _, u := range uplinks() {
		if u.Rate > found.Rate {
			found = u
		}
	}
	return found
}

// picture shows the lab.
func picture() string {
	var b strings.Builder
	const left, right = "  client --- hawser-edge --", "-- hawser-cloud --- origin\n"
	lines := make([]string, 0, len(uplinks()))
	width := 0
	for _, u := range uplinks() {
		line := fmt.Sprintf("%-5s %d Mbit/s, %d ms", u.Name, u.Rate/megabyte, (2 * u.Delay).Milliseconds())
		lines, width = append(lines, line), max(width, len(line))
	}
	indent := strings.Repeat(" ", len(left))
	for i, line := range lines {
		if i == 1 {
			b.WriteString(left + "+" + strings.Repeat(" ", width+6) + "+" + right)
		}
		fmt.Fprintf(&b, "%s+-- %-*s --+\n", indent, width, line)
	}
	b.WriteString("   curl" + strings.Repeat(" ", len(left)+width+len(right)-5) + "nginx\n")
	return b.String()
}
