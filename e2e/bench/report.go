package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// report is one table.
type report struct {
	Title string     `json:"title"`
	Head  []string   `json:"head"`
	Rows  [][]string `json:"rows"`
	Gates []gate     `json:"gates,omitempty"`
	Notes []string   `json:"notes,omitempty"`
	Raw   any        `json:"raw"` // all readings

	Machine string    `json:"machine"`
	At      time.Time `json:"at"`
	Took    string    `json:"took"`
	Load    [2]string `json:"load"`   // load averages before and after
	Stolen  float64   `json:"stolen"` // see stolen
}

// gate is a bound that a figure has to keep.
type gate struct {
	What  string  `json:"what"`
	Got   float64 `json:"got"`
	Want  float64 `json:"want"`
	Most  bool    `json:"most"` // Want is the most, not the least
	Unit  string  `json:"unit"`
	Share string  `json:"share,omitempty"` // how it was met
}

func (g gate) kept() bool {
	if g.Most {
		return g.Got <= g.Want
	}
	return g.Got >= g.Want
}

func (g gate) String() string {
	verdict, sign := "kept", ">="
	if g.Most {
		sign = "<="
	}
	if !g.kept() {
		verdict = "MISSED"
	}
	text := fmt.Sprintf("gate %s: %s: %.4g%s, wanted %s %.4g%s", verdict, g.What, g.Got, g.Unit, sign, g.Want, g.Unit)
	if g.Share != "" {
		text += " (" + g.Share + ")"
	}
	return text
}

func (r *report) add(cells ...string) { r.Rows = append(r.Rows, cells) }

func (r *report) missed() (n int) {
	for _, g := range r.Gates {
		if !g.kept() {
			n++
		}
	}
	return n
}

// print writes the table as Markdown with aligned columns.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "### %s\n\n", r.Title)
	lines := append([][]string{r.Head}, r.Rows...)
	width := make([]int, len(r.Head))
	for _, cells := range lines {
		for i, c := range cells {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	for n, cells := range lines {
		for i, c := range cells {
			fmt.Fprintf(w, "| %s%s ", c, strings.Repeat(" ", width[i]-len([]rune(c))))
		}
		fmt.Fprintln(w, "|")
		if n == 0 {
			for _, k := range width {
				fmt.Fprintf(w, "|%s", strings.Repeat("-", k+2))
			}
			fmt.Fprintln(w, "|")
		}
	}
	fmt.Fprintln(w)
	for _, g := range r.Gates {
		fmt.Fprintf(w, "- %v\n", g)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "- %s\n", n)
	}
	fmt.Fprintf(w, "- took %s; load average %s before, %s after; %.0f %% of the processors' busy time went to other machines\n\n",
		r.Took, r.Load[0], r.Load[1], 100*r.Stolen)
}

func (r *report) save(dir, name string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".json"), append(text, '\n'), 0o644)
}

// start is the moment at which a table was begun.
type start struct {
	at   time.Time
	load string
	cpu  procfs.CPUStat
}

func begin() start { return start{time.Now(), loadAverage(), processors()} }

func (s start) finish(r *report) {
	r.Machine, r.At, r.Load = thisMachine(), s.at, [2]string{s.load, loadAverage()}
	r.Stolen = stolen(s.cpu, processors())
	r.Took = time.Since(s.at).Round(time.Second).String()
}
