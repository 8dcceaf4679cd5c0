package main

import (
	"fmt"
	"strings"

	"hawser/scheduler"
)

// kindRivals reads a list of the scheduler's kinds, such as "earliest,minrtt,fifo", and
// makes a row of each: hawser by TCP links with that in its configuration, and all else
// as by default.
func kindRivals(list string) (rows []rival, err error) {
	known := kindsByName()
	for _, word := range strings.Split(list, ",") {
		key, ok := known[word]
		if !ok {
			return nil, fmt.Errorf("-kinds: %q is none of scheduler.order, scheduler.data and scheduler.path (docs/config.md)", word)
		}
		rows = append(rows, rival{name: key + ": " + word, transport: "tcp", scheduler: fmt.Sprintf("{%s: %s}", key, word)})
	}
	return rows, nil
}

// kindsByName are the keys below `scheduler` by what may stand there.
func kindsByName() map[string]string {
	known := map[string]string{}
	for _, k := range []scheduler.OrderKind{scheduler.OrderDRR, scheduler.OrderRoundRobin, scheduler.OrderStrict} {
		known[k.String()] = "order"
	}
	for _, k := range []scheduler.DataKind{scheduler.DataOverdue, scheduler.DataFIFO} {
		known[k.String()] = "data"
	}
	for _, k := range []scheduler.PathKind{scheduler.PathEarliest, scheduler.PathMinRTT, scheduler.PathWeighted, scheduler.PathRedundant,
		scheduler.PathBLEST, scheduler.PathECF, scheduler.PathRoundRobin} {
		known[k.String()] = "path"
	}
	return known
}
