"""NIST's files of references and hypotheses, as sclite reads them: `trn`, `stm` and `ctm`."""
