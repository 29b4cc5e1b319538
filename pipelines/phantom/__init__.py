"""Phantom lumbar spines: synthetic cases for the demo and the tests, without clinical meaning.

A phantom patient has a CT, a sagittal T1 and T2 and an axial T2 with label maps: vertebral bodies L1–L5,
discs L1-L2 … L5-S1, psoas major, quadratus lumborum and paraspinal muscle of both sides. Sites differ in
scanner, voxel spacing, orientation, intensity, noise, shading, label numbers and file format. Size, lordosis,
disc heights and where the patient lies vary from patient to patient and know nothing of the outcome.

The planted effect (its numbers stand in :mod:`pipelines.phantom.effect` and in each cohort's README.txt):

- age, bmi, osteoporosis and the number of surgical segments decide the chance of *degenerating* (43 % on
  average; their own AUC is about 0.77);
- a degenerating patient's discs lose nucleus signal and gain coarse texture on T2, and the paraspinal muscles
  gain fat streaks on axial T2; the three markers are drawn independently of each other and overlap;
- the outcome *is* degenerating, and the follow-up measurements lead the label rule to it.

Without the effect (``effect=False``) images and clinical variables are the same to the last byte and the
outcome is drawn by lot with the same prevalence.
"""

from pipelines.phantom.cohort import PhantomCase, PhantomCohort, write_phantom_cohort

__all__ = ["PhantomCase", "PhantomCohort", "write_phantom_cohort"]
