package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// document is one file being read. It remembers in which line each path was
// given, so that checks made after reading can still name the line.
type document struct {
	name  string
	lines map[string]int
}

// value is one node of the document and the path that leads to it, such as
// "links[1].transport". The root's path is "".
type value struct {
	doc  *document
	path string
	node ast.Node
}

// setter stores a value where it belongs or says what is wrong with it.
type setter func(v value) error

// read parses data and hands the root to set.
func (d *document) read(data []byte, set setter) error {
	if len(data) > MaxFile {
		return d.errorAt(1, "the file has %d bytes: at most %d are read", len(data), MaxFile)
	}
	root, err := d.parse(data)
	if err != nil {
		return err
	}
	d.lines[""] = line(root)
	return set(value{doc: d, node: root})
}

// parse returns the root node of the only document in data. The library is
// not ours, so a panic of it must not end the agent.
func (d *document) parse(data []byte) (root ast.Node, err error) {
	defer func() {
		if recover() != nil {
			root, err = nil, d.errorAt(1, "not valid YAML: the parser gives up")
		}
	}()
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // some editors mark UTF-8 so
	if at := foreign(data); at > 0 {
		return nil, d.errorAt(at, "not a text file: configuration is YAML in UTF-8")
	}
	if n := deepest(data); n > maxDepth {
		return nil, d.errorAt(1, "not a configuration: lists or brackets are nested %d deep", n)
	}
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, d.syntaxError(err, data)
	}
	for _, doc := range file.Docs {
		if _, directive := doc.Body.(*ast.DirectiveNode); doc.Body == nil || directive {
			continue // such as %YAML 1.2, which the parser takes for a document of its own
		}
		if root != nil {
			return nil, d.errorAt(line(doc.Body), "a second YAML document starts here: keep one per file")
		}
		root = doc.Body
	}
	if root == nil {
		return nil, d.errorAt(1, "the file is empty: start from the example in configs/")
	}
	return root, nil
}

// foreign returns the first line that is no text in UTF-8, counted from 1; 0: all are.
func foreign(data []byte) int {
	n := 0
	for row := range bytes.Lines(data) {
		if n++; !utf8.Valid(row) || bytes.IndexByte(row, 0) >= 0 {
			return n
		}
	}
	return 0
}

// maxDepth bounds the nesting that a line can open. The schema needs 3; the
// parser's time grows with the square of it, so a mangled file is stopped here.
const maxDepth = 32

// deepest returns an upper bound of the nesting that brackets, and runs of
// "- " at the start of a line, open in data. Nesting by indentation needs a
// longer line for each level, so the size of the file bounds it.
func deepest(data []byte) int {
	brackets, most := 0, 0
	for row := range bytes.Lines(data) {
		most = max(most, dashes(row))
		for _, c := range row {
			switch c {
			case '[', '{':
				brackets++
				most = max(most, brackets)
			case ']', '}':
				brackets = max(0, brackets-1)
			}
		}
	}
	return most
}

func dashes(row []byte) int {
	n := 0
	for i, c := range row {
		switch {
		case c == '-' && i+1 < len(row) && row[i+1] != '-':
			n++
		case c != ' ' && c != '\t':
			return n
		}
	}
	return n
}

// bare is an IPv6 address in brackets and a port without quotes: to YAML a list and more.
var bare = regexp.MustCompile(`[^"']\[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\]:[0-9]`)

func (d *document) syntaxError(err error, data []byte) error {
	var detail yaml.Error
	if !errors.As(err, &detail) || detail.GetToken() == nil {
		return d.errorAt(1, "not valid YAML: %s", oneLine(err.Error()))
	}
	at := 1
	if pos := detail.GetToken().Position; pos != nil {
		at = pos.Line
	}
	message := detail.GetMessage()
	if strings.Contains(message, "\t") {
		message = "a tab cannot indent: use spaces"
	}
	if rows := bytes.Split(data, []byte("\n")); at <= len(rows) && bare.Match(rows[at-1]) {
		message = `what begins with a bracket needs quotes: write "[address]:port"`
	}
	return d.errorAt(at, "not valid YAML: %s", oneLine(message))
}

func (d *document) errorAt(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", d.name, line, fmt.Sprintf(format, args...))
}

// fail makes the error for a path. A path that the file does not contain is
// reported in the line of its nearest parent.
func (d *document) fail(path, format string, args ...any) error {
	at, known := d.lines[path]
	for parent := path; !known && parent != ""; {
		parent = parent[:max(0, strings.LastIndexAny(parent, ".["))]
		at, known = d.lines[parent]
	}
	message := fmt.Sprintf(format, args...)
	if path != "" {
		message = path + ": " + message
	}
	return d.errorAt(max(at, 1), "%s", message)
}

// has reports whether the file gives the key.
func (d *document) has(path string) bool {
	_, ok := d.lines[path]
	return ok
}

func (v value) fail(format string, args ...any) error {
	return v.doc.fail(v.path, format, args...)
}

// child returns the node below v, and notes its line.
func (v value) child(path string, node ast.Node, at int) value {
	v.doc.lines[path] = at
	return value{doc: v.doc, path: path, node: node}
}

// fields holds the setter of each key that an object may have.
type fields map[string]setter

// object reads a mapping whose keys are all in known.
func object(known fields) setter {
	return func(v value) error {
		entries, err := v.entries()
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if err := v.entry(entry, known); err != nil {
				return err
			}
		}
		return nil
	}
}

func (v value) entries() ([]*ast.MappingValueNode, error) {
	switch n := v.node.(type) {
	case *ast.MappingNode:
		return n.Values, nil
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, nil
	}
	return nil, v.mismatch("keys and values, such as {key: value}")
}

func (v value) entry(entry *ast.MappingValueNode, known fields) error {
	at := line(entry.Key)
	key, ok := entry.Key.(*ast.StringNode)
	if !ok {
		return v.doc.errorAt(at, "%sa key must be a plain word, not %s", prefix(v.path), kind(entry.Key))
	}
	path := key.Value
	if v.path != "" {
		path = v.path + "." + key.Value
	}
	set, ok := known[key.Value]
	if !ok {
		return v.doc.errorAt(at, "%s%s: unknown key; known here: %s", prefix(v.path), shown(key.Value), list(known))
	}
	if first, twice := v.doc.lines[path]; twice {
		return v.doc.errorAt(at, "%s: given twice, first in line %d: keep one", path, first)
	}
	return set(v.child(path, entry.Value, at))
}

// sequence reads a list; each returns the setter for a new element.
func sequence[T any](dst *[]T, each func(*T) setter) setter {
	return func(v value) error {
		seq, ok := v.node.(*ast.SequenceNode)
		if !ok {
			return v.mismatch("a list, such as [first, second]")
		}
		*dst = make([]T, len(seq.Values))
		for i, node := range seq.Values {
			path := v.path + "[" + strconv.Itoa(i) + "]"
			if err := each(&(*dst)[i])(v.child(path, node, line(node))); err != nil {
				return err
			}
		}
		return nil
	}
}

// parsed reads a string or a number as written and stores what parse makes of it.
func parsed[T any](dst *T, parse func(string) (T, error)) setter {
	return func(v value) error {
		var raw string
		switch n := v.node.(type) {
		case *ast.StringNode:
			raw = n.Value
		case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
			raw = n.GetToken().Value
		default:
			return v.mismatch("a word or a number")
		}
		result, err := parse(raw)
		if err != nil {
			return v.fail("%s", oneLine(err.Error()))
		}
		*dst = result
		return nil
	}
}

// flag reads a boolean.
func flag(dst *bool) setter {
	return func(v value) error {
		switch n := v.node.(type) {
		case *ast.BoolNode:
			*dst = n.Value
			return nil
		case *ast.StringNode:
			return v.fail("%s is not true or false", shown(n.Value))
		}
		return v.mismatch("true or false")
	}
}

// enum reads one of the words; its index is the value.
func enum[T ~uint8](dst *T, words []string) setter {
	return parsed(dst, func(s string) (T, error) {
		for i, w := range words {
			if s == w {
				return T(i), nil
			}
		}
		return 0, fmt.Errorf("%s is not one of %s", shown(s), strings.Join(words, ", "))
	})
}

// optional reads a boolean whose absence means something else than false.
func optional(dst **bool) setter {
	return func(v value) error {
		b := new(bool)
		if err := flag(b)(v); err != nil {
			return err
		}
		*dst = b
		return nil
	}
}

// mismatch says that the node is of another kind than the schema wants.
func (v value) mismatch(want string) error {
	if v.node == nil {
		return v.fail("has no value: give %s, or leave the key out", want)
	}
	switch v.node.(type) {
	case *ast.NullNode:
		return v.fail("has no value: give %s, or leave the key out", want)
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode, *ast.LiteralNode:
		return v.fail("%s is not accepted here: write the value out", kind(v.node))
	}
	return v.fail("expected %s, not %s", want, kind(v.node))
}

// kind names a node's type for people who do not know YAML's terms.
func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys and values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return "text"
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.AnchorNode:
		return "an anchor"
	case *ast.AliasNode:
		return "an alias"
	case *ast.TagNode:
		return "a tag"
	case *ast.MergeKeyNode:
		return "a merge key"
	}
	return "something else"
}

// line returns the line in which a node starts, counted from 1.
func line(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 1
	}
	return max(1, n.GetToken().Position.Line)
}

func prefix(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

func list(known fields) string {
	keys := make([]string, 0, len(known))
	for k := range known {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return strings.Join(keys, ", ")
}

// shown quotes what the file says, cut so that the error stays one short line.
func shown(s string) string {
	return strconv.Quote(cut(s, 60))
}

// oneLine makes a library's message fit into one line.
func oneLine(s string) string {
	return cut(strings.Join(strings.Fields(s), " "), 200)
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
