package keychange

// BeforeWrite has EnrolmentKey call f before each write.
func (opt *EnrolmentOptions) BeforeWrite(f func() error) { opt.beforeWrite = f }
