package main

import (
	"fmt"
	"strconv"
	"strings"

	"hawser/e2e/lab"
)

// laneScenarios show what several connections per uplink change: one uplink
// alone, where nothing else helps, and two.
func laneScenarios() []scenario {
	line := mbit(50, 20*ms)
	one := func(u lab.Uplink) []lab.Uplink { u.Name = "first"; return []lab.Uplink{u} }
	return []scenario{
		{name: "lanes-clean", uplinks: one(line), objects: true},
		{name: "lanes-loss", uplinks: one(losing(line, 0.01)), objects: true, kind: lossy},
		{name: "lanes-deep", uplinks: one(deep(line, 1000*ms)), objects: true},
		{name: "lanes-loss-both", uplinks: two(losing(line, 0.01), losing(line, 0.01)), objects: true, kind: lossy},
	}
}

// laneRivals reads a list of numbers of lanes, such as "1,2,4".
func laneRivals(list string) (rows []rival, err error) {
	for _, word := range strings.Split(list, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-lanes: %q is not a list of numbers such as 1,2,4", list)
		}
		rows = append(rows, rival{name: fmt.Sprintf("lanes: %d", n), transport: "tcp", lanes: n})
	}
	return rows, nil
}
