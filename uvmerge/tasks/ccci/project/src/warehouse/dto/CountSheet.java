package warehouse.dto;

/** A count on paper. */
public class CountSheet {
    private String placeCode;
    private String articleSku;
    private int counted;
    private String byDisplayName;

    public String getPlaceCode() {
        return placeCode;
    }

    public void setPlaceCode(String placeCode) {
        this.placeCode = placeCode;
    }

    public String getArticleSku() {
        return articleSku;
    }

    public void setArticleSku(String articleSku) {
        this.articleSku = articleSku;
    }

    public int getCounted() {
        return counted;
    }

    public void setCounted(int counted) {
        this.counted = counted;
    }

    public String getByDisplayName() {
        return byDisplayName;
    }

    public void setByDisplayName(String byDisplayName) {
        this.byDisplayName = byDisplayName;
    }
}
