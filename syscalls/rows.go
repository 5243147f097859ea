package syscalls

// Rows are the rows of the table, by number.
func Rows() []Row {
	var out []Row
	for _, r := range rows {
		if r != nil {
			out = append(out, *r)
		}
	}
	return out
}
