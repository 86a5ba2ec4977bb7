package top

import "strings"

// column is one of a table.
type column struct {
	name  string
	right bool // numbers stand to the right, and are never cut
	least int  // how wide it is at least. What stands to the left may be cut to that if the table is too wide
	most  int  // how wide it is at most; 0 for no bound
	grows bool // takes the room that the others leave, and gives way first
	scale bool // the name is the two ends of a scale, with two spaces between them
	rank  int  // of the columns, those with the highest rank go first when there is no room; 0 never goes
}

// cell is one of a row: a text, or a picture in whatever width there is.
type cell struct {
	text  string
	style style
	draw  func(width int) line
}

const gap = "  "

// table lays rows out below their head, within a width.
func (g *glyphs) table(width int, cols []column, rows [][]cell) []line {
	kept, widths := layOut(width, cols, rows)
	lines := make([]line, 0, len(rows)+1)
	head := line{}
	for i, k := range kept {
		head = g.put(head, i, cols[k], cols[k].head(), widths[i])
	}
	lines = append(lines, head)
	for _, row := range rows {
		l := line{}
		for i, k := range kept {
			l = g.put(l, i, cols[k], row[k], widths[i])
		}
		lines = append(lines, l)
	}
	return lines
}

// head is the cell with the name.
func (c *column) head() cell {
	name := cell{text: c.name, style: faint}
	if from, to, found := strings.Cut(c.name, "  "); c.scale && found {
		name.draw = func(width int) line { return ends(line{{from, faint}}, line{{to, faint}}, width) }
	}
	return name
}

// put adds a cell to a line.
func (g *glyphs) put(l line, place int, c column, content cell, width int) line {
	if place > 0 {
		l = l.add(plain, gap)
	}
	if content.draw != nil {
		return append(l, content.draw(width).fit(g, width)...)
	}
	text, taken := g.cut(content.text, width)
	pad := strings.Repeat(" ", width-taken)
	if c.right {
		return l.add(plain, pad).add(content.style, text)
	}
	return l.add(content.style, text).add(plain, pad)
}

// layOut picks the columns that there is room for, and their widths.
func layOut(width int, cols []column, rows [][]cell) (kept, widths []int) {
	natural := make([]int, len(cols))
	for i, c := range cols {
		natural[i] = max(columns(c.name), c.least)
		for _, row := range rows {
			natural[i] = max(natural[i], columns(row[i].text))
		}
		if c.most > 0 {
			natural[i] = max(columns(c.name), min(natural[i], c.most))
		}
		kept = append(kept, i)
	}
	for {
		least, total := -len(gap), -len(gap)
		worst := -1
		for place, k := range kept {
			total += natural[k] + len(gap)
			least += len(gap) + natural[k] - cols[k].slack(natural[k])
			if rank := cols[k].rank; rank > 0 && (worst < 0 || rank > cols[kept[worst]].rank) {
				worst = place
			}
		}
		if least <= width || worst < 0 {
			return kept, spread(width-total, kept, natural, cols)
		}
		kept = append(kept[:worst:worst], kept[worst+1:]...)
	}
}

// slack is how much narrower a column of this width may become.
func (c *column) slack(width int) int {
	if c.right {
		return 0
	}
	return max(0, width-max(1, c.least))
}

// spread gives what is left of the width to the columns that grow, or takes what is missing from those that may be cut.
func spread(left int, kept, natural []int, cols []column) []int {
	widths := make([]int, len(kept))
	for place, k := range kept {
		widths[place] = natural[k]
	}
	for _, growing := range []bool{true, false} {
		for place, k := range kept {
			c := &cols[k]
			switch {
			case c.grows != growing:
			case left < 0:
				less := min(-left, c.slack(widths[place]))
				widths[place] -= less
				left += less
			case growing && c.most > 0:
				widths[place] = max(widths[place], min(widths[place]+left, c.most))
				left = 0
			case growing:
				widths[place] += left
				left = 0
			}
		}
	}
	return widths
}
