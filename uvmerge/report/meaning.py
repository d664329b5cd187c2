"""What the figures mean: each measure in a line, with what chance gives."""

MEANING = (
    ("Base, fine-tuned, k", "W_b and W_f of shape m × n; D = W_f − W_b. The k leading singular triplets"
     " of both are compared; k is smaller than asked for where a matrix has fewer values that are not 0."),
    ("Relative change", "‖D‖ / ‖W_b‖, Frobenius norms. Independent matrices of one scale: √2. Rounding"
     " alone: about 0.17 % in BF16, 0.021 % in F16."),
    ("Principal angles", "Angles between the spans of the k leading left (right) vectors of both, in"
     " radians. Independent spans follow the grey band; where 2k exceeds the dimension d, 2k − d of the"
     " angles are 0 whatever the matrices are."),
    ("Chordal distance", "√ of the mean of sin²θ: 0 where the spans are one, 1 where they are orthogonal."
     " Independent spans: √(1 − k/d)."),
    ("Alignment", "Mean over fine-tuned vectors of their largest |cosine| with a base vector. Independent:"
     " the value printed beside it."),
    ("Value change", "(S_f − S_b) / S_b for each of the k. Unrelated matrices of one scale show small"
     " changes too, so that stable values are no evidence of anything."),
    ("Singular values of the change", "Those of D. The dashed line is a matrix of independent entries with"
     " the same energy (Marchenko–Pastur); what rises above it is structure."),
    ("Stable rank, effective rank", "‖D‖² / σ₁(D)², and exp of the entropy of σ(D) over their sum. The"
     " stable rank of a matrix of independent entries is printed in brackets."),
    ("In the leading block", "Share of ‖D‖² in C = U_bᵀ D V_b, k × k. Without structure: what"
     " the same entries of D with random signs show, printed beside it; k²/(mn) where all entries are of"
     " one size. diag is the share on the diagonal of C, which changes values (without structure 1/k of"
     " that); rot is the rest of C, which turns leading vectors among each other. The picture shows mean"
     " squares of C, leading vectors at the top left."),
    ("Gap at the cut", "(σ_k − σ_k+1) / σ_k in the tables; over σ₁(D) in the heat map. Where the change is"
     " larger than the gap, vectors may swap places over the cut, and the largest angles say only that."),
    ("Intruders", "How many of the ten leading left vectors of W_f have no |cosine| of 0.5 with any left"
     " vector of W_b (arXiv 2410.21228). Not counted where the spans are no nearer than chance."),
    ("No finding", "A figure within four standard deviations of what independent subspaces, or a change"
     " with random signs, would show. Hatched in the heat maps."),
)  # fmt: skip
